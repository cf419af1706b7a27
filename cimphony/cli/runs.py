"""The steps of `demo`, `run` and `cost`: load, evaluate or estimate on every chip, write records."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from cimphony.chip import NON_IDEALITIES, Chip
from cimphony.chip.switches import check_names
from cimphony.cli.show import keeping
from cimphony.errors import DataError
from cimphony.record import Record, new_record, read_record


def evaluate(
    model_name: str,
    chips: Sequence[Chip],
    data: str,
    folder: Path,
    *,
    seeds: int,
    ages: Sequence[float],
    fidelities: Sequence[str | None],
    exclude: Sequence[str] = (),
    max_tokens: int,
) -> list[Record]:
    """Perplexity of a model on a text, digital and on every chip: a record each, in `folder`."""
    from cimphony.evaluate import evaluate_chips, last_windows, load_model, load_text, perplexity, token_name
    from cimphony.evaluate.data import CALIBRATION

    paths = _record_paths(chips, folder)
    model, tokenizer = load_model(model_name)
    if not model.can_generate():
        raise DataError(
            f"run measures the perplexity of language models that generate; {model_name} is a {type(model).__name__}. "
            "Measure it from Python: cimphony.evaluate_chips takes any metric"
        )
    tokens = load_text(data, tokenizer)
    window = min(256, getattr(model.config, "max_position_embeddings", None) or 256, len(tokens))
    with keeping(folder):
        return [
            evaluate_chips(
                model,
                partial(perplexity, tokens=tokens, window=window, max_tokens=max_tokens),
                chip,
                seeds=range(seeds),
                ages=ages,
                fidelities=fidelities,
                calibration=last_windows(tokens, window),
                exclude=exclude,
                metric_name=f"perplexity per {token_name(tokenizer)}",
                settings={"name": model_name, "data": data, "max_tokens": max_tokens, "window": window}
                | {"calibration": f"the last {CALIBRATION} tokens of the text"},
                record_path=path,
            )
            for chip, path in zip(chips, paths, strict=True)
        ]


def ask(
    model_name: str,
    chips: Sequence[Chip],
    tasks: Sequence[str],
    folder: Path,
    asking: dict[str, Any],
    *,
    seeds: int,
    **population: Any,
) -> list[Record]:
    """Tasks with an answer, digital and on every chip: a record for each task and chip, in `folder`.

    Args:
        tasks: .jsonl files of prompts and answers; else names, files or folders of lm-eval.
        asking: `mode`, `shots` and `limit`, None where the task decides.
        population: what else `evaluate_chips` takes.
    """
    from cimphony.evaluate import load_model
    from cimphony.evaluate.tasks import load_task

    paths = _record_paths(chips, folder)
    found: dict[str, Any] = {}
    for spec in tasks:
        if spec.endswith(".jsonl"):
            task = load_task(spec).head(asking["limit"])
            found[task.name] = task
        else:
            from cimphony.evaluate.harness import harness_tasks

            found |= harness_tasks(spec)
    model, tokenizer = load_model(model_name)
    population |= {"seeds": range(seeds), "settings": {"name": model_name}}
    with keeping(folder):
        return [
            _ask(model, tokenizer, name, task, chip, asking, population | {"record_path": _beside(path, name)})
            for name, task in found.items()
            for chip, path in zip(chips, paths, strict=True)
        ]


def _ask(
    model: Any, tokenizer: Any, name: str, task: Any, chip: Chip, asking: dict[str, Any], population: dict[str, Any]
) -> Record:
    from cimphony.evaluate.generation import evaluate_generation
    from cimphony.evaluate.tasks import Task

    if not isinstance(task, Task):
        from cimphony.evaluate.harness import evaluate_harness

        return evaluate_harness(model, tokenizer, name, chip, loaded=task, **asking, **population)
    given = {"mode": asking["mode"] or "direct", "shots": asking["shots"] or 0}
    return evaluate_generation(model, tokenizer, task, chip, **given, **population)


def _beside(path: Path, task: str) -> Path:
    return path.with_name(path.stem + "-" + re.sub(r"[^\w.-]+", "-", task) + ".json")


def cost(model_name: str, chips: Sequence[Chip], *, prompt: int, new_tokens: int, batch: int) -> Record:
    """What one request costs on every chip, as a record."""
    from cimphony.cost import estimate
    from cimphony.nn.trace import trace

    began = perf_counter()
    work = trace(model_name, prompt=prompt, new_tokens=new_tokens, batch=batch)
    reports = [estimate(work, chip).to_dict() for chip in chips]
    record = new_record(
        "cost",
        f"Cost of {work.model}",
        settings={"name": model_name, "prompt": work.prompt, "new_tokens": new_tokens, "batch": batch},
        results={"model": work.model, "reports": reports, "chips": [chip.model_dump(mode="json") for chip in chips]},
    )
    return record.model_copy(update={"duration": perf_counter() - began})


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
    names = [re.sub(r"[^\w.-]+", "-", chip.name) for chip in chips]
    for name in names:
        if names.count(name) > 1:
            raise DataError(
                f"two chips are named {name!r}: their records would be one file; give each a name of its own"
            )
    return [folder / f"{name}.json" for name in names]
