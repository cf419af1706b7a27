"""Cimphony: PyTorch and Hugging Face models on simulated analog compute-in-memory chips.

One chip description, two answers: does the model still work, and what does it cost?
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cimphony.chip import Chip, chip_names, load_chip
from cimphony.errors import CapacityError, ChipError, CimphonyError, DataError, StateError
from cimphony.mapping import Placement, place
from cimphony.record import Record, read_record, write_record
from cimphony.workload import Workload, load_workload

if TYPE_CHECKING:
    from cimphony.cost import CostReport, estimate
    from cimphony.evaluate import accuracy, evaluate_chips, load_model, load_text, perplexity
    from cimphony.nn import age_, calibrate, convert_, load_, program_, restore_, save, summary
    from cimphony.nn.trace import trace

# what needs torch is imported at first use, so that the cost tower starts in milliseconds
_LAZY = {
    **dict.fromkeys(
        ("age_", "calibrate", "convert_", "load_", "program_", "restore_", "save", "summary"), "cimphony.nn"
    ),
    **dict.fromkeys(("accuracy", "evaluate_chips", "load_model", "load_text", "perplexity"), "cimphony.evaluate"),
    **dict.fromkeys(("CostReport", "estimate"), "cimphony.cost"),
    "trace": "cimphony.nn.trace",
}

__all__ = [
    "CapacityError",
    "Chip",
    "ChipError",
    "CimphonyError",
    "CostReport",
    "DataError",
    "Placement",
    "Record",
    "StateError",
    "Workload",
    "accuracy",
    "age_",
    "calibrate",
    "chip_names",
    "convert_",
    "estimate",
    "evaluate_chips",
    "load_",
    "load_chip",
    "load_model",
    "load_text",
    "load_workload",
    "perplexity",
    "place",
    "program_",
    "read_record",
    "restore_",
    "save",
    "summary",
    "trace",
    "write_record",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'cimphony' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
