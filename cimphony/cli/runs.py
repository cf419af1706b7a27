"""The steps of `demo`, `run` and `cost`: load, evaluate or estimate on every chip, write records."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from cimphony.chip import NON_IDEALITIES, Chip
from cimphony.chip.switches import check_names
from cimphony.cli.show import keeping
from cimphony.errors import DataError
from cimphony.record import Record, new_record, read_record

_BYTES = 384  # words of a byte-level model: the bytes, and a few of its own


def evaluate(
    model_name: str, chips: Sequence[Chip], data: str, folder: Path, *, max_tokens: int, ranges: str | None = None,
    **population: Any,
) -> list[Record]:  # fmt: skip
    """Perplexity of a model on a text, digital and on every chip: a record each, in `folder`.

    Args:
        ranges: another text to learn ranges from; None: the end of this one, if possible behind what is measured.
        population: seeds, ages and what else `evaluate_chips` takes.
    """
    from cimphony.evaluate import calibration_windows, evaluate_chips, load_text, perplexity, token_name

    paths = _record_paths(chips, folder)
    model, tokenizer = _language_model(model_name)
    tokens = load_text(data, tokenizer)
    window = min(_window(model), len(tokens))
    settings = {"name": model_name, "data": data, "max_tokens": max_tokens, "window": window}
    population["calibration"], settings["calibration"] = calibration_windows(tokens, window, max_tokens)
    if ranges is not None:
        population["calibration"], settings["calibration"] = _ranges(ranges, tokenizer, window)
    metric = partial(perplexity, tokens=tokens, window=window, max_tokens=max_tokens)
    with keeping(folder):
        return [
            evaluate_chips(
                model, metric, chip, record_path=path, metric_name=f"perplexity per {token_name(tokenizer)}",
                **_as_saved(model_name, chip, population | {"settings": settings}, ranges),
            )
            for chip, path in zip(chips, paths, strict=True)
        ]  # fmt: skip


def ask(
    model_name: str, chips: Sequence[Chip], tasks: Sequence[str], folder: Path, asking: dict[str, Any], *,
    ranges: str | None = None, **population: Any,
) -> list[Record]:  # fmt: skip
    """Tasks with an answer, digital and on every chip: a record for each task and chip, in `folder`.

    Args:
        tasks: .jsonl files of prompts and answers; else names, files or folders of lm-eval.
        asking: `mode`, `shots` and `limit`, None where the task decides.
        ranges: a text to learn ranges from; None: examples of the task.
        population: seeds, ages and what else `evaluate_chips` takes.
    """
    from cimphony.evaluate.generation import evaluate_generation
    from cimphony.evaluate.tasks import load_task

    paths = _record_paths(chips, folder)
    found: dict[str, Callable[..., Record]] = {}
    for spec in tasks:
        if spec.endswith(".jsonl"):
            task = load_task(spec).head(asking["limit"])
            given: dict[str, Any] = {"mode": asking["mode"] or "direct", "shots": asking["shots"] or 0}
            found[task.name] = partial(evaluate_generation, task=task, **given)
        else:
            from cimphony.evaluate.harness import evaluate_harness, harness_tasks

            for name, loaded in harness_tasks(spec).items():
                found[name] = partial(evaluate_harness, task=name, loaded=loaded, **asking)
    model, tokenizer = _language_model(model_name)
    if tokenizer is None:
        raise DataError(f"{model_name} has no tokenizer, and tasks are texts; save one in the model's folder")
    settings = {"name": model_name}
    if ranges is not None:
        population["calibration"], settings["calibration"] = _ranges(ranges, tokenizer, _window(model))
    population |= {"settings": settings}
    with keeping(folder):
        return [
            measure(
                model, tokenizer, chip=chip, record_path=_beside(path, name),
                **_as_saved(model_name, chip, population, ranges),
            )
            for name, measure in found.items()
            for chip, path in zip(chips, paths, strict=True)
        ]  # fmt: skip


def _window(model: Any) -> int:
    return min(256, getattr(model.config, "max_position_embeddings", None) or 256)


def _ranges(text: str, tokenizer: Any, window: int) -> tuple[Any, str]:
    """Windows of a text given to learn ranges from, and in words."""
    from cimphony.evaluate import calibration_windows, load_text

    tokens = load_text(text, tokenizer)
    windows, _ = calibration_windows(tokens, min(window, len(tokens)), 0)
    return windows, f"the last {windows.numel()} tokens of {text}"


def _as_saved(model_name: str, chip: Chip, population: dict[str, Any], ranges: str | None) -> dict[str, Any]:
    """Options of `evaluate_chips`; a model saved from this chip keeps what of it was on the chip, and its ranges."""
    from cimphony.nn import load_calibration

    learned = load_calibration(model_name, chip)
    if learned is None:
        return population
    if ranges is not None:
        return population | {"include": learned.layers}
    settings = population["settings"] | {"calibration": "saved with the model"}
    return population | {"calibration": learned, "include": learned.layers, "settings": settings}


def _language_model(name: str) -> tuple[Any, Any]:
    """A model that goes on with a text, and its tokenizer, None where its tokens are bytes."""
    from cimphony.evaluate import load_model

    model, tokenizer = load_model(name)
    if not model.can_generate() or model.config.is_encoder_decoder:
        raise DataError(
            f"run measures language models that go on with a text; {name} is a {type(model).__name__}. Measure it "
            "from Python: cimphony.evaluate_chips takes any metric"
        )
    words = model.config.vocab_size
    if tokenizer is None and words > _BYTES:
        raise DataError(
            f"{name} has no tokenizer, and {words} words are not bytes; save its tokenizer in the folder of the model"
        )
    return model, tokenizer


def _beside(path: Path, task: str) -> Path:
    return path.with_name(path.stem + "-" + _file_name(task) + ".json")


def cost(model_name: str, chips: Sequence[Chip], *, prompt: int, new_tokens: int, batch: int) -> Record:
    """What one request costs on every chip, as a record."""
    from cimphony.cost import estimate
    from cimphony.nn.trace import trace

    began = perf_counter()
    work = trace(model_name, prompt=prompt, new_tokens=new_tokens, batch=batch)
    reports = [estimate(work, chip).to_dict() for chip in chips]
    request = {"prompt": work.prompt, "new_tokens": new_tokens}
    return new_record(
        "cost",
        f"Cost of {work.model}",
        settings={"name": model_name, "batch": batch, **request},
        results={
            "model": work.model,
            **request,
            "reports": reports,
            "chips": [chip.model_dump(mode="json") for chip in chips],
        },
        duration=perf_counter() - began,
    )


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name)


def switched(chip: Chip, only: str | None, without: str | None) -> Chip:
    """A chip with the non-idealities that two comma-separated lists leave on."""
    kept = NON_IDEALITIES if only is None else _names(only)
    off = _names(without or "")
    return chip.only(*(name for name in kept if name not in off))


def _names(listed: str) -> list[str]:
    return sorted(check_names(name.strip() for name in listed.split(",") if name.strip()))


def forget_finished(folder: Path) -> None:
    """Remove the records of runs that ended, so that they are measured anew; interrupted ones go on."""
    for path in folder.glob("*.json"):
        if read_record(path).complete:
            path.unlink()


def _record_paths(chips: Sequence[Chip], folder: Path) -> list[Path]:
    names = [_file_name(chip.name) for chip in chips]
    for name in names:
        if names.count(name) > 1:
            raise DataError(
                f"two chips are named {name!r}: their records would be one file; give each a name of its own"
            )
    return [folder / f"{name}.json" for name in names]
