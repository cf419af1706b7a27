"""Texts to measure on: the embedded one, files, lists, hub datasets."""

import gzip
import json
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cimphony.errors import DataError
from cimphony.nn.architectures import resolve

_CALIBRATION = 1024  # tokens, from the end of the text
_SPLITS = ("test", "validation", "train")
_FILES = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz")


def load_text(spec: str | Path | Sequence[str], tokenizer: Any = None) -> Tensor:
    """The tokens of a text, int64 [token].

    Args:
        spec: `demo` for the embedded text; a .txt or .jsonl file, also .gz (a JSON line is a string or has the field
            `text`); a hub dataset as `name[:config][:split]` with a column `text`; or a list of strings. Several
            texts are joined by a blank line.
        tokenizer: of the model; None: the bytes of the text in UTF-8.

    Raises DataError where there is no such text, or it is empty or not UTF-8.
    """
    texts = [*spec] if isinstance(spec, Sequence) and not isinstance(spec, str) else _read(spec)
    if not all(isinstance(text, str) for text in texts):
        raise DataError("text: a list of texts holds something that is not a string")
    text = "\n\n".join(texts)
    if not text.strip():
        raise DataError(f"text {_name(spec)} is empty; give one with at least a few words")
    if tokenizer is None:
        return torch.tensor(list(text.encode()), dtype=torch.long)
    return torch.tensor(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], dtype=torch.long)


def calibration_windows(tokens: Tensor, window: int, scored: int) -> tuple[Tensor, str]:
    """Where ranges are learnt: the end of a text as a batch [window, token], at most 1024 tokens; and in words.

    The first `scored` tokens are measured, so they are left alone where a window is left behind them.
    """
    rest = tokens[scored:]
    apart = len(rest) >= window
    taken = rest if apart else tokens
    count = max(1, min(_CALIBRATION, len(taken)) // window)
    said = "none of which is measured" if apart else "which are measured too"
    return taken[-count * window :].view(count, window), f"the last {count * window} tokens of the text, {said}"


def token_name(tokenizer: Any) -> str:
    """What one token is: `byte` for byte-level models, else `token`."""
    sample = "one byte each: é"
    if tokenizer is None or len(tokenizer(sample, add_special_tokens=False)["input_ids"]) == len(sample.encode()):
        return "byte"
    return "token"


def _name(spec: Any) -> str:
    return repr(str(spec)) if isinstance(spec, str | Path) else "list"


def _read(spec: Any) -> list[str]:
    if str(spec) == "demo":
        return _read_file(Path(resolve("demo")) / "eval.txt")
    path = Path(spec)
    if path.is_file():
        return _read_file(path)
    if path.exists() or path.is_absolute() or str(spec).startswith(".") or path.name.endswith(_FILES):
        raise DataError(f"text {str(spec)!r} is not a file; give {', '.join(_FILES)}, a hub dataset name, or 'demo'")
    return _read_hub(str(spec))


def _read_file(path: Path) -> list[str]:
    if not path.name.endswith(_FILES):
        raise DataError(f"text {str(path)!r} is of no known kind; give {', '.join(_FILES)}")
    text = read_file(path, "text", ", ".join(_FILES))
    return [_text(*line) for line in json_lines(text, path)] if ".jsonl" in path.suffixes[-2:] else [text]


def read_file(path: Path, what: str, kinds: str) -> str:
    """The content of a file in UTF-8, also .gz; DataError, naming `what` it is and the kinds to give instead."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{what} {str(path)!r} is not UTF-8 (byte {error.start}); convert it to UTF-8") from None
    except (OSError, EOFError) as error:
        raise DataError(f"{what} {str(path)!r} cannot be read: {error}; give {kinds}") from None


def json_lines(text: str, path: Path) -> Iterator[tuple[Any, str]]:
    """The value of each line that is not empty, and its place; DataError for one that is not JSON."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            place = f"{path}, line {number}"
            try:
                yield json.loads(line), place
            except json.JSONDecodeError as error:
                raise DataError(f"{place}: not JSON: {error}") from None


def _text(value: Any, place: str) -> str:
    text = value.get("text") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise DataError(f"{place}: a line must be a string, or an object with a string in the field 'text'")
    return text


def _read_hub(spec: str) -> list[str]:
    try:
        datasets: Any = import_module("datasets")
    except ImportError:
        raise DataError(
            f"text {spec!r} is no file, and hub datasets need an extra package: pip install 'cimphony[hub]'"
        ) from None
    name, *rest = spec.split(":")
    split = rest.pop() if rest and rest[-1] in _SPLITS else None
    try:
        loaded: Any = datasets.load_dataset(name, *rest, split=split)
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(
            f"text {spec!r} is neither a file nor a hub dataset that can be reached: {reason}; "
            "write name, name:config or name:config:split"
        ) from None
    if split is None:
        loaded = loaded[next((known for known in _SPLITS if known in loaded), next(iter(loaded)))]
    if "text" not in loaded.column_names:
        raise DataError(
            f"text {spec!r} has no column 'text', only {', '.join(loaded.column_names)}; export it to .jsonl"
        )
    return list(loaded["text"])
