"""NL-DPE's accuracy and what noise-aware fine-tuning recovers, point by point; stop and go on as you like.

    python papers/nl_dpe_study.py SST-2 --model ENCODER --data GLUE_FOLDER --work WORK_FOLDER
    python papers/nl_dpe_study.py llama --model LLAMA_FOLDER --data STORIES --work WORK_FOLDER
    python papers/nl_dpe_study.py digits
    python papers/nl_dpe_study.py thresholds

A model as it came is put on chips with more and more of their noise; then it is fine-tuned by the published recipe
(crossbar noise alone, then ACAM thresholds), on whole chips, and, to compare with, as long without noise, and put on
chips that training never saw. Digits run on chips with eight times the published noise, which a model this small bears
otherwise. Fine-tuned weights stay in the work folder. Records go to papers/results; `cimphony reproduce nl-dpe` reads
their claims.
"""

import argparse
import copy
import math
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from cimphony.chip import Acam, Chip, LogLinearDevice, Thresholds, load_chip
from cimphony.circuits.acam import compile_function
from cimphony.evaluate.metrics import evaluating
from cimphony.methods.acam_thresholds import LITERAL, WORKING, code_error, tune_acams_, tune_rows
from cimphony.methods.noise_aware import fit_
from cimphony.methods.training import tune_
from cimphony.nn import calibrate, convert_, program_, restore_
from cimphony.papers.hyflexpim_studies import Digits, Glue, Study, Task, Text
from cimphony.record import Record, new_record, read_record, write_record

ADC, DEVICE = "units.analog.adc", "units.analog.cell.device"
SEEDS = range(5)
# what a chip has; every one with effective reads
CHIPS: dict[str, dict[str, Any]] = {
    "crossbar noise": {},  # and no converters
    "ideal ACAM": {f"{ADC}.thresholds": None},
    "whole chip": {},
    "clipped ranges": {f"{ADC}.quantile": 0.999},  # values beyond saturate: outliers do not set the step
    "clipped ranges, exact cells": {f"{ADC}.quantile": 0.999, DEVICE: {"kind": "ideal"}},
    "errors by column": {f"{ADC}.thresholds.drawn": "column"},
    "errors by column, clipped ranges": {f"{ADC}.thresholds.drawn": "column", f"{ADC}.quantile": 0.999},
    "abs_minmax": {f"{ADC}.thresholds.mapping": "abs_minmax"},
    "binary code": {f"{ADC}.code": "binary"},
    **{f"{bits} bits": {f"{ADC}.bits": bits} for bits in (6, 7, 9)},
    **{
        f"noise x {scale:g}": {
            f"{ADC}.thresholds.device.scale": scale,
            DEVICE: {"kind": "log_linear", "scale": scale},
        }
        for scale in (0.5, 1.5, 2.0)
    },
    **{
        f"{share:.0%} stuck{f', {spares} spares a bit' if spares else ''}": {
            f"{ADC}.thresholds.device.stuck": {"off": share},
            f"{ADC}.spare_rows": spares,
            DEVICE: {"kind": "log_linear", "stuck": {"off": share}},
        }
        for share, spares in ((0.02, 0), (0.05, 0), (0.05, 8), (0.1, 0))
    },
}
CAME, LITERALLY, WHOLE, TUNED = "as it came", "literal recipe", "whole chips", "as it came, thresholds tuned"
CLIPPED, CONTROL = "whole chips, clipped ranges", "as long without noise"
LONGER = "whole chips, clipped ranges, longer"
GRIDS = {
    "main": [(CAME, name) for name in ("whole chip", "ideal ACAM", "crossbar noise")] + [(WHOLE, "whole chip")],
    "clipped": [(one, "clipped ranges") for one in (CLIPPED, CAME, CONTROL)],
    "longer": [(LONGER, "clipped ranges")],
    "control": [(CONTROL, "whole chip")],
    "columns": [
        (CAME, "errors by column"), *((one, "errors by column, clipped ranges") for one in (CAME, CLIPPED)),
    ],
    "literal": [(LITERALLY, "whole chip")],
    "thresholds": [(TUNED, "whole chip")],
    "sweep": [(CAME, name) for name in list(CHIPS)[7:]],
    "tuned": [(CLIPPED, name) for name in ("7 bits", "noise x 2", "5% stuck")],
}  # fmt: skip
# what weights are trained on, and by task the steps and the rate at first; the published rate is 5e-5
TUNING: dict[str, tuple[str, dict[str, tuple[int, float]]]] = {
    LITERALLY: (
        "crossbar noise", {"SST-2": (40, 5e-5), "MRPC": (40, 5e-5), "llama": (40, 5e-5), "digits": (400, 1e-4)},
    ),
    WHOLE: ("whole chip", {"SST-2": (40, 1e-4), "MRPC": (40, 1e-4), "llama": (40, 5e-4), "digits": (400, 5e-3)}),
    # the noise of cells behind a second pair costs time and no accuracy
    CLIPPED: (
        "clipped ranges, exact cells",
        {"SST-2": (40, 1e-4), "MRPC": (40, 1e-4), "llama": (40, 5e-4), "digits": (400, 5e-3)},
    ),
    LONGER: ("clipped ranges, exact cells", {"SST-2": (120, 1e-4), "llama": (200, 1e-3)}),
    CONTROL: ("", {"SST-2": (40, 1e-4), "MRPC": (40, 1e-4), "llama": (40, 5e-4), "digits": (400, 5e-3)}),
}  # fmt: skip


class Small(nn.Module):
    """Three layers for scikit-learn's digits, called as a model of Hugging Face's is."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64, 48), nn.GELU(), nn.Linear(48, 48), nn.GELU(), nn.Linear(48, 10)
        )  # fmt: skip

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> SimpleNamespace:
        logits = self.layers(pixel_values.flatten(1) + 1)
        return SimpleNamespace(
            logits=logits, loss=None if labels is None else nn.functional.cross_entropy(logits, labels)
        )


class SmallDigits(Digits):
    """Digits for the network above."""

    def fresh(self) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return Small()

    def settings(self) -> dict[str, Any]:
        return {"model": "64-48-48-10 with GELU", "train": 1000, "examples": len(self.labels) - 1000}


def chip(name: str, task: str) -> Chip:
    made = load_chip("nl-dpe").replace({"units.analog.fidelity": "effective"})
    if task == "digits":
        made = made.replace({f"{ADC}.thresholds.device.scale": 8.0})
    made = made.replace(CHIPS[name])
    return made.without("converters") if name == "crossbar noise" else made


def task_of(arguments: argparse.Namespace) -> tuple[Task, nn.Module]:
    """The task and the digital model."""
    if arguments.task == "llama":
        text = Text("llama", arguments.model, arguments.data, window=64, windows=24)
        return text, text.fresh()
    if arguments.task == "digits":
        digits = SmallDigits(digital=())
        return digits, Study(digits, arguments.work, epochs=40, lr=3e-3).dense()
    glue = Glue(arguments.model, arguments.data, arguments.task, train=4000, dev=arguments.batches)
    epochs, lr = {"MRPC": (3, 1e-4), "SST-2": (1, 5e-5)}[arguments.task]
    return glue, Study(glue, arguments.work, epochs=epochs, lr=lr).dense()


def on_chip(task: Task, model: nn.Module, name: str) -> nn.Module:
    """A copy on a chip, its ranges learned from eight training batches."""
    made = convert_(copy.deepcopy(model).eval(), chip(name, task.name), exclude=task.digital)
    with evaluating(made), calibrate(made):
        for batch in task.training(0)[:8]:
            made(**batch)
    return made


def tuned(
    task: Task, model: nn.Module, variant: str, work: Path, minutes: float
) -> tuple[nn.Module, list[float]] | None:
    """Digital weights after fine-tuning and the losses, ten steps each; None: stopped on the way."""
    on, rates = TUNING[variant]
    (steps, lr), stop = rates[task.name], time.monotonic() + 60 * minutes
    path = work / f"nl-dpe-{task.name}-{variant.replace(' ', '-')}-{steps}-{lr:g}.safetensors"
    made = on_chip(task, model, on) if on else copy.deepcopy(model)
    per_epoch = len(task.training(0))

    def batch(step: int) -> dict[str, Tensor]:
        if time.monotonic() > stop:
            raise TimeoutError
        return task.training(1 + step // per_epoch)[step % per_epoch]

    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)  # dropout
            if on:
                losses = fit_(made, batch, steps, lr=lr, checkpoint=path, save_every=10, progress=True)
            else:
                losses = tune_(made, batch, steps, lr=lr, weight_decay=0.0, betas=(0.9, 0.999), checkpoint=path)
    except TimeoutError:
        return None
    made = restore_(made) if on else made.eval()
    return made, [
        round(statistics.fmean(losses[first : first + max(10, steps // 10)]), 4)
        for first in range(0, steps, max(10, steps // 10))
    ]


def measured(task: Task, model: nn.Module, variant: str, name: str, seeds: list[int]) -> Iterator[tuple[int, float]]:
    """The metric on one chip after another."""
    made = on_chip(task, model, name)
    if variant in (LITERALLY, TUNED):
        tune_acams_(made, LITERAL if variant == LITERALLY else WORKING)
    for seed in seeds:
        yield seed, task.judge(task.outputs(program_(made, seed=seed)))


def run(arguments: argparse.Namespace, path: Path) -> Record:
    """Every point of the chosen grids that the record does not have yet."""
    began, stop = time.monotonic(), time.monotonic() + 60 * arguments.minutes
    task, model = task_of(arguments)
    settings = {
        "task": task.name,
        **task.settings(),
        "chip": "nl-dpe",
        "tuning": {one: [on, *rates[task.name]] for one, (on, rates) in TUNING.items() if task.name in rates},
        "chips": CHIPS,
    }
    results: dict[str, Any] = {"metric": task.metric, "digital": {}, "training": {}, "points": []}
    record = new_record("study", f"NL-DPE accuracy: {task.name}", settings=settings, results=results)
    if path.exists():
        old = read_record(path)
        record = record.model_copy(update={"created": old.created, "duration": old.duration})
        results = copy.deepcopy(old.results)
    models: dict[str, nn.Module] = {CAME: model, TUNED: model}

    def save(complete: bool = False) -> Record:
        if path.exists():
            join(results, read_record(path).results)
        results["groups"] = groups(results["points"])
        results["claims"] = claims(results) if task.name in ("SST-2", "MRPC") else {}
        spent = record.duration + time.monotonic() - began
        changed = record.model_copy(update={"results": results, "duration": spent, "complete": complete})
        write_record(changed, path)
        return changed

    for variant, name in [pair for grid in arguments.grid for pair in GRIDS[grid]]:
        have = [one["seed"] for one in results["points"] if (one["variant"], one["chip"]) == (variant, name)]
        missing = [seed for seed in SEEDS if seed not in have]
        if not missing:
            continue
        if variant not in models:
            made = tuned(task, model, variant, arguments.work, (stop - time.monotonic()) / 60)
            if made is None:
                return save()
            models[variant], results["training"][variant] = made
        if variant not in results["digital"]:
            results["digital"][variant] = task.judge(task.outputs(models[variant]))
        for seed, value in measured(task, models[variant], variant, name, missing if name else []):
            results["points"].append({"variant": variant, "chip": name, "seed": seed, "value": round(value, 6)})
            print(variant, "|", name, "|", seed, "|", round(value, 4), flush=True)
            save()
            if time.monotonic() > stop:
                return save()
    return save(complete=True)


def join(results: dict[str, Any], others: dict[str, Any]) -> None:
    """Take in what another process measured meanwhile."""
    known = {(one["variant"], one["chip"], one["seed"]) for one in results["points"]}
    results["points"] += [one for one in others["points"] if (one["variant"], one["chip"], one["seed"]) not in known]
    for name in ("digital", "training"):
        results[name] = others[name] | results[name]


def groups(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and spread over chips."""
    found: dict[tuple[str, str], list[float]] = {}
    for point in points:
        found.setdefault((point["variant"], point["chip"]), []).append(point["value"])
    return [
        {"variant": variant, "chip": name, "chips": len(values), "mean": round(statistics.fmean(values), 4),
         "sd": round(statistics.stdev(values), 4) if len(values) > 1 else None, "min": min(values), "max": max(values)}
        for (variant, name), values in found.items()
    ]  # fmt: skip


def claims(results: dict[str, Any]) -> dict[str, float]:
    """Points lost from the digital model, for the claims that this task measures."""
    means = {(one["variant"], one["chip"]): one["mean"] for one in results["groups"] if one["chips"] == len(SEEDS)}
    wanted = {
        "crossbar-noise-loss": (CAME, "crossbar noise"), "noise-loss": (CAME, "whole chip"),
        "naf-loss": (CLIPPED, "clipped ranges"), "bits-7-drop": (CLIPPED, "7 bits"),
    }  # fmt: skip
    digital = results["digital"].get(CAME, math.nan)
    found = {name: round(100 * (digital - means[pair]), 2) for name, pair in wanted.items() if pair in means}
    if (CAME, "5% stuck") in means and (CAME, "whole chip") in means:
        found["stuck-loss"] = round(100 * (means[CAME, "whole chip"] - means[CAME, "5% stuck"]), 2)
    return found


FUNCTIONS: dict[str, tuple[Any, tuple[float, float]]] = {
    "identity": (lambda x: x, (-1.0, 1.0)), "relu": (torch.relu, (-1.0, 1.0)),
    "sigmoid": (torch.sigmoid, (-6.0, 6.0)), "tanh": (torch.tanh, (-4.0, 4.0)),
    "gelu": (nn.functional.gelu, (-8.0, 8.0)), "silu": (nn.functional.silu, (-10.0, 10.0)),
    "exp": (torch.exp, (-6.0, 0.0)), "log": (torch.log, (1e-3, 1.0)),
}  # fmt: skip


def thresholds(path: Path) -> Record:
    """Code errors of eight functions, and what tuning the thresholds of three does, on 20 chips that no recipe saw."""
    began, rows = time.monotonic(), []
    for name, (function, domain) in FUNCTIONS.items():
        for code in ("gray", "binary"):
            for mapping in ("abs_minmax", "range"):
                how = Thresholds(device=LogLinearDevice(g_min=0.0), mapping=mapping)  # type: ignore[arg-type]
                acam = Acam(code=code, thresholds=how)  # type: ignore[arg-type]
                compiled = compile_function(function, domain, 8, gray=code == "gray")
                ways = {"compiled": compiled}
                if code == "gray" and mapping == "range" and name in ("identity", "gelu", "exp"):
                    ways |= {
                        "literal": tune_rows(compiled, function, acam, LITERAL),
                        "working": tune_rows(compiled, function, acam, WORKING),
                    }
                row: dict[str, Any] = {"function": name, "code": code, "mapping": mapping}
                for way, made in ways.items():
                    errors = code_error(made, function, acam, range(20))
                    row[way] = [round(statistics.fmean(errors), 3), round(statistics.stdev(errors), 3)]
                rows.append(row)
                print(row, flush=True)
    settings = {"chips": 20, "functions": {name: list(domain) for name, (_, domain) in FUNCTIONS.items()},
                "literal": vars(LITERAL), "working": vars(WORKING)}  # fmt: skip
    made = new_record("study", "NL-DPE: code errors, RMS in codes, mean and sd over chips", settings=settings,
                      results={"rows": rows}, duration=time.monotonic() - began)  # fmt: skip
    write_record(made, path)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=[*TUNING[WHOLE][1], "thresholds"])
    parser.add_argument("--model", help="folder")
    parser.add_argument("--data", help="GLUE folder, or a text")
    parser.add_argument("--work", type=Path, help="folder for fine-tuned weights")
    parser.add_argument("--grid", nargs="+", default=["main"], choices=[*GRIDS])
    parser.add_argument("--batches", type=int, default=8, help="about so many batches of 32 of the dev set")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so long")
    parser.add_argument("--out", type=Path, help="the record; default papers/results/nl_dpe-TASK.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    out = arguments.out or Path(__file__).parent / "results" / f"nl_dpe-{arguments.task.lower()}.json"
    record = thresholds(out) if arguments.task == "thresholds" else run(arguments, out)
    print(f"{out}: {record.duration:.0f} s, {'complete' if record.complete else 'stopped'}")


if __name__ == "__main__":
    main()
