"""NL-DPE's accuracy and what noise-aware fine-tuning recovers, point by point; stop and go on as you like.

    python papers/nl_dpe_study.py SST-2 --model ENCODER --data GLUE_FOLDER --work WORK_FOLDER
    python papers/nl_dpe_study.py STS-B --model ENCODER --data GLUE_FOLDER --work WORK_FOLDER
    python papers/nl_dpe_study.py MRPC --model ENCODER --data GLUE_FOLDER --work WORK_FOLDER
    python papers/nl_dpe_study.py llama --model LLAMA_FOLDER --data STORIES --work WORK_FOLDER
    python papers/nl_dpe_study.py digits --work WORK_FOLDER
    python papers/nl_dpe_study.py thresholds

A model as it came is put on chips that training never saw; then it is fine-tuned on whole chips, weights and ranges
together or alone, by the published recipe (crossbar noise alone, then ACAM thresholds), and, to compare with, as long
without noise. Ranges of training are kept. Digits run on chips with sixteen times the published noise: this small a
model bears less without loss. Fine-tuned weights stay in the work folder. Records go to papers/results; `cimphony
reproduce nl-dpe` reads their claims.
"""

import argparse
import copy
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cimphony.chip import Acam, Chip, LogLinearDevice, Thresholds, load_chip
from cimphony.circuits.acam import compile_function
from cimphony.evaluate.metrics import evaluating
from cimphony.methods.acam_thresholds import LITERAL, WORKING, code_error, tune_acams_, tune_rows
from cimphony.methods.noise_aware import REACH, fit_
from cimphony.methods.training import tune_
from cimphony.nn import analog_layers, calibrate, calibration_of, convert_, program_, recalibrate_, restore_
from cimphony.papers.hyflexpim_studies import Digits, Glue, Study, Task, Text
from cimphony.record import Record, new_record, read_record, write_record

ADC, DEVICE = "units.analog.adc", "units.analog.cell.device"
SEEDS = {"SST-2": range(5), "STS-B": range(5), "MRPC": range(5), "llama": range(5), "digits": range(20)}
NOISE = {"digits": 16.0}  # times the published


def chips(base: float = 1.0) -> dict[str, dict[str, Any]]:
    """What differs from the published chip by name; `base`: of all noise."""

    def cells(scale: float = 1.0, stuck: float = 0.0, spares: int = 0) -> dict[str, Any]:
        off = {"off": stuck} if stuck else None
        return {
            f"{ADC}.thresholds.device.scale": base * scale,
            f"{ADC}.thresholds.device.stuck": off,
            f"{ADC}.spare_rows": spares,
            DEVICE: {"kind": "log_linear", "scale": base * scale, "stuck": off},
        }

    whole = cells()
    return {
        "crossbar noise": whole,  # and no converters
        "ideal ACAM": whole | {f"{ADC}.thresholds": None},
        "whole chip": whole,
        "exact cells": whole | {DEVICE: {"kind": "ideal"}},  # for training: writing cells takes half its time
        "moving ranges": whole | {f"{ADC}.range": "moving"},  # as the paper calibrates on GLUE
        "clipped ranges": whole | {f"{ADC}.quantile": 0.999},  # values beyond saturate: outliers do not set the step
        "errors by column": whole | {f"{ADC}.thresholds.drawn": "column"},
        "binary code": whole | {f"{ADC}.code": "binary"},
        **{f"{bits} bits": whole | {f"{ADC}.bits": bits} for bits in (6, 7, 9)},
        **{f"noise x {scale:g}": cells(scale) for scale in (0.0, 0.5, 1.5, 2.0)},
        "2% stuck": cells(stuck=0.02),
        "5% stuck": cells(stuck=0.05),
        "5% stuck, 8 spares a bit": cells(stuck=0.05, spares=8),
        "10% stuck": cells(stuck=0.1),
        "10% stuck, 16 spares a bit": cells(stuck=0.1, spares=16),
    }


@dataclass(frozen=True)
class Way:
    """How weights are trained before they go on chips; the published rate is 5e-5."""

    on: str | None  # chip; none: without noise
    steps: dict[str, int]
    lr: dict[str, float]
    reach: float = 0.0  # of ACAM ranges: their rate times the steps
    seed: int = 0  # of batches and of the chips of training
    anew: bool = False  # ranges are learned once more after training
    literal: bool = False  # so too, and thresholds are tuned by the literal recipe


DIGITAL = {
    "SST-2": (12000, 1, 5e-5),
    "STS-B": (None, 2, 1e-4),
    "MRPC": (None, 3, 1e-4),
}  # before: training examples, epochs, rate
STEPS = {"SST-2": 60, "STS-B": 60, "MRPC": 60, "llama": 300, "digits": 400}
RATES = {"SST-2": 5e-5, "STS-B": 5e-5, "MRPC": 5e-5, "llama": 1e-3, "digits": 5e-3}
NOTHING = dict.fromkeys(RATES, 1e-9)
CAME, LITERALLY, CONTROL = "as it came", "literal recipe", "as long without noise"
WEIGHTS, RANGES, BOTH = "weights, ranges as calibrated", "ranges alone", "weights and ranges"
WAYS = {
    LITERALLY: Way("crossbar noise", STEPS, RATES | {"llama": 5e-5, "digits": 1e-4}, literal=True),
    CONTROL: Way(None, STEPS, RATES),
    WEIGHTS: Way("exact cells", STEPS, RATES),
    f"{WEIGHTS}, calibrated anew": Way("exact cells", STEPS, RATES, anew=True),
    RANGES: Way("exact cells", STEPS, NOTHING, reach=REACH),
    BOTH: Way("exact cells", STEPS, RATES, reach=REACH),
    f"{BOTH}, again": Way("exact cells", STEPS, RATES, reach=REACH, seed=1),
}
GRIDS = {
    "main": [(CAME, "whole chip"), (BOTH, "whole chip"), (CONTROL, "whole chip")],
    "shares": [(WEIGHTS, "whole chip"), (RANGES, "whole chip")],
    "anew": [(f"{WEIGHTS}, calibrated anew", "whole chip")],
    "again": [(f"{BOTH}, again", "whole chip")],
    "calibration": [(one, name) for name in ("clipped ranges", "moving ranges") for one in (CAME, CONTROL)],
    "parts": [(CAME, "crossbar noise"), (CAME, "ideal ACAM")],
    "literal": [(LITERALLY, "whole chip")],
    "short": [
        (BOTH, name)
        for name in (
            "7 bits",
            "5% stuck",
            "noise x 2",
            "5% stuck, 8 spares a bit",
            "6 bits",
            "binary code",
            "errors by column",
        )
    ],
    "sweep": [(BOTH, name) for name in list(chips())[6:]],
    "sweep before": [(CAME, name) for name in list(chips())[6:]],
}


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


class Written(Text):
    """A decoder on a text, trained on what it writes itself: the text is too short to train on without learning it."""

    work: Path | None = None

    @cached_property
    def written(self) -> Tensor:
        """Windows [window, token] of texts of 256 tokens, sampled as the model has them."""
        path = (self.work or Path()) / f"nl-dpe-written-{self.name}.safetensors"
        if not path.exists():
            model = self.fresh().eval()
            start = torch.full((160, 1), cast("Any", model).config.bos_token_id)
            with torch.random.fork_rng(), torch.no_grad():
                torch.manual_seed(0)
                how = {"max_new_tokens": 255, "do_sample": True, "temperature": 1.0, "top_k": 0, "eos_token_id": None}
                texts = [cast("Any", model).generate(start, **how) for _ in range(4)]
            save_file({"tokens": torch.cat(texts).view(-1, self.window).contiguous()}, path)
        return load_file(path)["tokens"]

    def training(self, epoch: int) -> list[dict[str, Tensor]]:
        order = torch.randperm(len(self.written), generator=torch.Generator().manual_seed(epoch))
        return [{"input_ids": ids, "labels": ids} for ids in self.written[order].split(8)]

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "trained on": f"{self.written.numel()} tokens that the model wrote"}


def chip(name: str, task: str) -> Chip:
    made = load_chip("nl-dpe").replace({"units.analog.fidelity": "effective"})
    made = made.replace(chips(NOISE.get(task, 1.0))[name])
    return made.without("converters") if name == "crossbar noise" else made


def task_of(arguments: argparse.Namespace) -> tuple[Task, nn.Module]:
    """The task and the digital model."""
    if arguments.task == "llama":
        text = Written("llama", arguments.model, arguments.data, window=64, windows=24)
        text.work = arguments.work
        return text, text.fresh()
    if arguments.task == "digits":
        digits = SmallDigits(digital=())
        return digits, Study(digits, arguments.work, epochs=40, lr=3e-3).dense()
    train, epochs, lr = DIGITAL[arguments.task]
    first = Glue(arguments.model, arguments.data, arguments.task, train=train)
    glue = Glue(arguments.model, arguments.data, arguments.task, train=4000, dev=arguments.batches)
    return glue, Study(first, arguments.work, epochs=epochs, lr=lr).dense()


def on_chip(task: Task, model: nn.Module, name: str) -> nn.Module:
    """A copy on a chip, its ranges learned from eight training batches."""
    made = convert_(copy.deepcopy(model).eval(), chip(name, task.name), exclude=task.digital)
    with evaluating(made), calibrate(made):
        for batch in task.training(0)[:8]:
            made(**batch)
    return made


def tuned(task: Task, model: nn.Module, name: str, work: Path, minutes: float) -> tuple[nn.Module, list[float]] | None:
    """The model after training, on its chip where it was trained on one, and the losses; None: stopped on the way."""
    way, stop = WAYS[name], time.monotonic() + 60 * minutes
    steps, lr = way.steps[task.name], way.lr[task.name]
    path = work / f"nl-dpe-2-{task.name}-{name.replace(' ', '-')}-{steps}-{lr:g}.safetensors"
    made = on_chip(task, model, way.on) if way.on else copy.deepcopy(model)
    per_epoch = len(task.training(0))

    def batch(step: int) -> dict[str, Tensor]:
        if time.monotonic() > stop:
            raise TimeoutError
        return task.training(1 + 100 * way.seed + step // per_epoch)[step % per_epoch]

    try:
        with torch.random.fork_rng():
            torch.manual_seed(way.seed)  # dropout
            kept: dict[str, Any] = {"lr": lr, "checkpoint": path, "save_every": 10, "progress": True}
            if way.on:
                losses = fit_(made, batch, steps, ranges=way.reach / steps, seed=way.seed, **kept)
            else:
                losses = tune_(made, batch, steps, weight_decay=0.0, betas=(0.9, 0.999), **kept)
    except TimeoutError:
        return None
    tenth = max(10, steps // 10)
    return made.eval(), [round(statistics.fmean(losses[at : at + tenth]), 4) for at in range(0, steps, tenth)]


def measured(task: Task, model: nn.Module, variant: str, name: str, seeds: list[int]) -> Iterator[tuple[int, float]]:
    """The metric on one chip after another; ranges are those of training where there were any."""
    way = WAYS.get(variant)
    made = on_chip(task, digital(model), name)
    if way and way.literal:
        tune_acams_(made, LITERAL)
    elif way and way.on and not way.anew:
        recalibrate_(made, calibration_of(model))
    for seed in seeds:
        yield seed, task.judge(task.outputs(program_(made, seed=seed)))


def digital(model: nn.Module) -> nn.Module:
    """A digital copy."""
    made = copy.deepcopy(model)
    return restore_(made) if analog_layers(made) else made


def run(arguments: argparse.Namespace, path: Path) -> Record:
    """Every point of the chosen grids that the record does not have yet."""
    began, stop = time.monotonic(), time.monotonic() + 60 * arguments.minutes
    task, model = task_of(arguments)
    settings = {
        "task": task.name,
        **task.settings(),
        "digital model": DIGITAL.get(task.name),
        "chip": "nl-dpe",
        "noise": NOISE.get(task.name, 1.0),
        "training": {
            name: {
                "on": way.on,
                "steps": way.steps[task.name],
                "lr": way.lr[task.name],
                "ranges": way.reach / way.steps[task.name],
            }
            for name, way in WAYS.items()
        },
        "chips": chips(NOISE.get(task.name, 1.0)),
    }
    results: dict[str, Any] = {"metric": task.metric, "digital": {}, "training": {}, "points": []}
    record = new_record("study", f"NL-DPE accuracy: {task.name}", settings=settings, results=results)
    if path.exists():
        old = read_record(path)
        record = record.model_copy(update={"created": old.created, "duration": old.duration})
        results = copy.deepcopy(old.results)
    models: dict[str, nn.Module] = {CAME: model}

    def save(complete: bool = False) -> Record:
        if path.exists():
            join(results, read_record(path).results)
        results["groups"] = groups(results["points"])
        results["recovered"] = recovered(results)
        results["claims"] = claims(results) if task.name in DIGITAL else {}
        spent = record.duration + time.monotonic() - began
        changed = record.model_copy(update={"results": results, "duration": spent, "complete": complete})
        write_record(changed, path)
        return changed

    for variant, name in [pair for grid in arguments.grid for pair in GRIDS[grid]]:
        have = [one["seed"] for one in results["points"] if (one["variant"], one["chip"]) == (variant, name)]
        missing = [seed for seed in SEEDS[task.name] if seed not in have]
        if not missing:
            continue
        if variant not in models:
            made = tuned(task, model, variant, arguments.work, (stop - time.monotonic()) / 60)
            if made is None:
                return save()
            models[variant], results["training"][variant] = made
        if variant not in results["digital"]:
            results["digital"][variant] = task.judge(task.outputs(digital(models[variant])))
        for seed, value in measured(task, models[variant], variant, name, missing):
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


def means(results: dict[str, Any]) -> dict[tuple[str, str], float]:
    """Of variants measured on five chips or more."""
    return {(one["variant"], one["chip"]): one["mean"] for one in results["groups"] if one["chips"] >= 5}


def recovered(results: dict[str, Any]) -> dict[str, float]:
    """Share of what the model as it came loses on the whole chip, of the digital model as it came."""
    found, ideal = means(results), results["digital"].get(CAME, math.nan)
    before = found.get((CAME, "whole chip"), math.nan)
    names = {f"{variant} | {name}": value for (variant, name), value in found.items() if name in RECOVERING}
    return {name: round((value - before) / (ideal - before), 3) for name, value in names.items() if before == before}


RECOVERING = ("whole chip", "clipped ranges", "moving ranges")


def claims(results: dict[str, Any]) -> dict[str, float]:
    """Points lost from the digital model, for the claims that this task measures."""
    known, best = means(results), results["digital"].get(CAME, math.nan)
    wanted = {
        "crossbar-noise-loss": (CAME, "crossbar noise"), "noise-loss": (CAME, "whole chip"),
        "naf-loss": (BOTH, "whole chip"), "bits-7-drop": (BOTH, "7 bits"),
    }  # fmt: skip
    found = {name: round(100 * (best - known[pair]), 2) for name, pair in wanted.items() if pair in known}
    if (BOTH, "5% stuck") in known and (BOTH, "whole chip") in known:
        found["stuck-loss"] = round(100 * (known[BOTH, "whole chip"] - known[BOTH, "5% stuck"]), 2)
    return found


FUNCTIONS: dict[str, tuple[Any, tuple[float, float]]] = {
    "identity": (lambda x: x, (-1.0, 1.0)), "relu": (torch.relu, (-1.0, 1.0)),
    "sigmoid": (torch.sigmoid, (-6.0, 6.0)), "tanh": (torch.tanh, (-4.0, 4.0)),
    "gelu": (nn.functional.gelu, (-8.0, 8.0)), "silu": (nn.functional.silu, (-10.0, 10.0)),
    "exp": (torch.exp, (-6.0, 0.0)), "log": (torch.log, (1e-3, 1.0)),
    "log, wider": (torch.log, (1e-4, 1.0)), "log, narrower": (torch.log, (2.0**-8, 1.0)),
}  # fmt: skip
DRAWN = 300  # chips


def spread(errors: Sequence[float]) -> dict[str, float]:
    sd = statistics.stdev(errors)
    return {"mean": round(statistics.fmean(errors), 3), "sd": round(sd, 3),
            "error of a mean of ten": round(sd / math.sqrt(10), 3)}  # fmt: skip


def thresholds(path: Path) -> Record:
    """Code errors of functions, and what tuning the thresholds of three does, on chips that no recipe saw."""
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
                    errors = code_error(made, function, acam, range(DRAWN))
                    row[way] = spread(errors)
                rows.append(row)
                print(row, flush=True)
    for name in ("identity", "exp"):
        function, domain = FUNCTIONS[name]
        for scale in (0.5, 1.5, 2.0):
            how = Thresholds(device=LogLinearDevice(g_min=0.0, scale=scale), mapping="abs_minmax")
            errors = code_error(compile_function(function, domain, 8), function, Acam(thresholds=how), range(DRAWN))
            rows.append({"function": name, "code": "gray", "mapping": "abs_minmax", "noise": scale,
                         "compiled": spread(errors)})  # fmt: skip
            print(rows[-1], flush=True)
    settings = {"chips": DRAWN, "functions": {name: list(domain) for name, (_, domain) in FUNCTIONS.items()},
                "literal": vars(LITERAL), "working": vars(WORKING)}  # fmt: skip
    made = new_record("study", "NL-DPE: code errors, RMS in codes, mean and sd over chips", settings=settings,
                      results={"rows": rows}, duration=time.monotonic() - began)  # fmt: skip
    write_record(made, path)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=[*STEPS, "thresholds"])
    parser.add_argument("--model", help="folder")
    parser.add_argument("--data", help="GLUE folder, or a text")
    parser.add_argument("--work", type=Path, default=Path("nl-dpe-work"), help="folder for fine-tuned weights")
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
