"""Papers: their claims as data, and how each is measured here. One file per paper."""

from collections.abc import Callable
from importlib import import_module

from cimphony.errors import DataError
from cimphony.papers import gain_cell_attention, hyflexpim, macros
from cimphony.record import Record

_PAPERS = {"gain-cell-attention": gain_cell_attention.record, "hyflexpim": hyflexpim.record, "macros": macros.record}


def _later(module: str) -> Callable[[], Record]:
    """Papers whose measures need torch are imported when they are asked for."""
    return lambda: import_module(f"cimphony.papers.{module}").record()


_PAPERS |= {
    "bwma": _later("bwma"),
    "llm-reasoning": _later("llm_reasoning"),
    "nl-dpe": _later("nl_dpe"),
    "quad-inr": _later("quad_inr"),
}


def paper_names() -> list[str]:
    """Names that `reproduce` takes."""
    return sorted(_PAPERS)


def reproduce(paper: str) -> Record:
    """Measure every claim of a paper; a record with claim, paper, ours, ratio and verdict.

    Raises DataError for a paper that is not here.
    """
    if paper not in _PAPERS:
        raise DataError(f"paper {paper!r} is not here; choose one of {', '.join(paper_names())}")
    return _PAPERS[paper]()
