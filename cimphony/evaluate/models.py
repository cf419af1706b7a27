"""Models with their weights, by name."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cimphony.errors import DataError
from cimphony.nn.architectures import load_config, model_class, model_names, quietly, resolve
from cimphony.nn.low_rank import RANKS
from cimphony.nn.store import load_low_rank

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_model(name: str | Path, *, dtype: torch.dtype = torch.float32) -> "tuple[PreTrainedModel, Any]":
    """A model in evaluation mode and its tokenizer, None where it has none.

    Args:
        name: `demo`, a local folder in Hugging Face format, or a hub name. The head is the one that the
            configuration's `architectures` names. Layers that a folder holds decomposed
            (`methods.gradient_redistribution`) come decomposed.
        dtype: of the weights.

    Raises DataError where there is no such model, or it has no weights.
    """
    config = load_config(name)
    if str(name) in model_names() and not list(Path(resolve(name)).glob("*.safetensors")):
        raise DataError(
            f"{name} comes as a shape only: use it with `cimphony cost`; give a hub name or folder for numbers"
        )
    with _no_bars():
        if getattr(config, RANKS, None):
            model = load_low_rank(name, config).to(dtype)
        else:
            model = quietly(model_class(config).from_pretrained, name, dtype=dtype)
    return model.eval(), _tokenizer(name, model)


def _tokenizer(name: str | Path, model: "PreTrainedModel") -> Any:
    folder = Path(resolve(name))
    # without files, transformers makes up an empty tokenizer for some models
    made_up = folder.is_dir() and not any(list(folder.glob(kind)) for kind in ("tokenizer*", "vocab*", "*.model"))
    if model.main_input_name != "input_ids" or made_up:
        return None
    from transformers import AutoTokenizer

    try:
        return quietly(AutoTokenizer.from_pretrained, name)
    except DataError:
        return None


@contextmanager
def _no_bars() -> Iterator[None]:
    """Without the bars that transformers draws while loading."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
