"""Gain-cell attention on the embedded model: the order of the paper's variants, adaptation, bit widths, leakage.

    python papers/gain_cell_study.py --work WORK_FOLDER      # about half an hour on two cores; resumes where it stopped

Every variant trains the same number of steps on the text that the embedded model learned from (the Python language
reference, without the held-out topics) and is measured on the held-out text. The record says everything else.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

import cimphony as cim
from cimphony.chip import Chip
from cimphony.methods.gain_cell_adaptation import adapt_, linearise_, tune_
from cimphony.nn import attention_layers
from cimphony.nn.architectures import resolve
from cimphony.record import Draft

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT.parent / "scripts"))
import train_demo  # noqa: E402

WINDOW, BATCH, LR = 256, 8, 1e-3
CHIP = {"units.attention.window": WINDOW, "units.attention.token_period": 0.16 * 5e-3 / WINDOW}
Q_LEVELS, KV_LEVELS = (None, 64, 32, 16, 8, 4), (None, 64, 32, 16, 8, 4, 2)
DETAIL = 4097  # held-out bytes in the sensitivity tables
NO_DROPOUT = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}


def chip(**changes: Any) -> Chip:
    """The CMOS chip at this study's window, leaking as much over it as the paper's does over 1024 tokens."""
    paths = {f"units.attention.{name.replace('__', '.')}": value for name, value in changes.items()}
    return cim.load_chip("gain-cell-cmos").replace({**CHIP, **paths})


def model(scratch: bool = False) -> Any:
    """The embedded model, trained or with fresh weights; no dropout, as in the paper."""
    folder = resolve("demo")
    if not scratch:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **NO_DROPOUT)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder, **NO_DROPOUT), dtype=torch.float32)


class Study:
    """Variants one after another; what is finished is kept in the record."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.work, self.steps, self.tuned = arguments.work, arguments.steps, arguments.tuned
        self.only: list[str] | None = arguments.only
        training, held_out = train_demo.load_text()
        self.training, self.text = train_demo.as_ids(training), cim.load_text("demo")
        assert bytes(self.text.tolist()) == held_out, "another Python's reference: the held-out text differs"
        settings = {
            "model": "demo", "window": WINDOW, "batch": [BATCH, WINDOW], "lr": LR, "steps": self.steps,
            "of which after adaptation": self.tuned, "dropout": 0, "seed": 0,
            "text": "pydoc_data.topics without the held-out topics; measured on the held-out ones",
        }  # fmt: skip
        self.draft = Draft(
            "study", "Gain-cell attention on the embedded model", arguments.out, settings=settings,
            chip=chip().model_dump(mode="json"),
            assumptions=[
                "leakage: the same share of a window as the paper's, exp(-0.16) for the oldest token",
                "bit widths and leakage are varied after training, without training again",
            ],
        )  # fmt: skip

    def batches(self, step: int) -> dict[str, torch.Tensor]:
        """Windows of the training text, by step alone."""
        generator = torch.Generator().manual_seed(step)
        starts = torch.randint(0, len(self.training) - WINDOW, (BATCH, 1), generator=generator)
        ids = self.training[starts + torch.arange(WINDOW)]
        return {"input_ids": ids, "labels": ids}

    def tune(self, net: Any, name: str, steps: int, first: int = 0) -> list[float]:
        return tune_(
            net, lambda step: self.batches(first + step), steps, lr=LR, warm_up=steps // 10,
            checkpoint=self.work / f"{name}.safetensors", save_every=20, progress=True,
        )  # fmt: skip

    def perplexity(self, net: Any, length: int | None = None) -> float:
        return cim.perplexity(net, self.text, window=WINDOW, max_tokens=length)

    def once(self, name: str, measure: Callable[[], Any]) -> None:
        """Measure what the record lacks, and write it down."""
        if self.only and name not in self.only:
            return
        if name not in self.draft.results:
            self.draft.save(**{name: measure()})
        print(name, self.draft.results[name], flush=True)

    # variants

    def softmax(self) -> dict[str, float]:
        net = model()
        before = self.perplexity(net)
        self.tune(net, "softmax", self.steps)
        return {"as it comes": before, "trained as long as the others": self.perplexity(net)}

    def linear(self) -> Any:
        net = linearise_(cim.convert_(model(), chip()))
        self.tune(net, "linear", self.steps - self.tuned)
        return net

    def adapted(self, reset: bool = False) -> tuple[Any, Any]:
        net = self.linear()
        if reset:
            for attention in attention_layers(net).values():
                for name, scaler in attention.scalers.items():
                    scaler.gain.data.fill_(1.0)
                    scaler.shift.data.fill_(0.45 if name in ("key", "value") else 0.0)
        torch.manual_seed(0)
        return net, adapt_(net, chip(), self.calibration(), iterations=20)

    def calibration(self) -> dict[str, torch.Tensor]:
        ids = torch.cat([self.batches(10**6 + at)["input_ids"] for at in range(2)])
        return {"input_ids": ids, "labels": ids}

    def adaptation(self, reset: bool) -> dict[str, Any]:
        """Before and after the matching alone, on the held-out text and on the matching's own batch."""
        net = self.linear()
        linear = self.perplexity(net)
        if reset:
            net, done = self.adapted(reset=True)
            fresh = cim.convert_(cim.restore_(self.linear()), chip())
        else:
            net, done = self.adapted()
            fresh = self.linear()
            for attention in attention_layers(fresh).values():
                attention.use(chip(), attention.unit_name)
        after = self.perplexity(net)
        return {
            "linear": linear, "before": self.perplexity(fresh), "after": after, "over linear": after / linear - 1,
            "iterations": done.iterations, "converged": done.converged, "losses": done.losses, "errors": done.errors,
        }  # fmt: skip

    def final(self) -> Any:
        net, _ = self.adapted()
        self.tune(net, "tuned", self.tuned, first=self.steps - self.tuned)
        return net

    def direct(self, scratch: bool) -> float:
        net = cim.convert_(model(scratch), chip())
        self.tune(net, "scratch" if scratch else "direct", self.steps)
        return self.perplexity(net)

    def sliding(self) -> dict[str, float]:
        """A window of 64 tokens, a quarter of the text, all stages again in a quarter of the steps."""
        short = {"window": 64, "token_period": 0.16 * 5e-3 / 64}
        net = linearise_(cim.convert_(model(), chip(**short)))
        self.tune(net, "sliding linear", self.steps // 2)
        linear = self.perplexity(net)
        adapt_(net, chip(**short), self.calibration(), iterations=20)
        adapted = self.perplexity(net)
        self.tune(net, "sliding tuned", self.tuned)
        return {"window": 64, "linear": linear, "adapted": adapted, "adapted, then tuned": self.perplexity(net)}

    # sensitivity, without training

    def on(self, net: Any, **changes: Any) -> float:
        for attention in attention_layers(net).values():
            attention.use(chip(**changes), attention.unit_name)
        return self.perplexity(net, DETAIL)

    def levels(self) -> list[dict[str, Any]]:
        """As the paper's table: no leakage and no quantised output while inputs and memories vary."""
        net = self.final()
        fixed = {"cell__retention": None, "pulses__output_levels": None}
        return [
            {"query levels": q, "memory levels": kv, "perplexity": self.on(
                net, pulses__input_levels=q, cell__levels=kv, **fixed
            )}
            for q in Q_LEVELS for kv in KV_LEVELS
        ]  # fmt: skip

    def leakage(self) -> list[dict[str, Any]]:
        net, life = self.final(), WINDOW * CHIP["units.attention.token_period"]
        return [
            {"retention over window": share, "leaks to": target, "perplexity": self.on(
                net, cell__retention=None if share is None else share * life, cell__leaks_to=target
            )}
            for target in ("middle", "ground") for share in (None, 100, 25, 6.25, 3, 1.5, 1, 0.5, 0.25)
        ]  # fmt: skip

    def noise(self) -> list[dict[str, Any]]:
        net, rows = self.final(), []
        for kind, values in {
            "read": (0.5e-6, 1e-6, 2e-6, 4e-6), "gain": (0.02, 0.05, 0.1), "offset": (0.1e-6, 0.3e-6, 1e-6),
            "comparator": (1e-6, 4e-6), "write": (0.01, 0.03, 0.06), "jitter": (0.1e-9, 0.3e-9, 1e-9),
        }.items():  # fmt: skip
            for value in values:
                found = []
                for seed in range(2):
                    for attention in attention_layers(net).values():
                        attention.use(chip(noise={kind: value}), attention.unit_name)
                    cim.program_(net, seed=seed)
                    found.append(self.perplexity(net, DETAIL))
                rows.append({"noise": kind, "deviation": value, "perplexity of two chips": found})
        return rows

    def run(self) -> None:
        self.once("softmax", self.softmax)
        self.once("linear", lambda: self.perplexity(self.linear()))
        self.once("adaptation alone", lambda: self.adaptation(reset=False))
        self.once("adaptation alone, from fresh scalers", lambda: self.adaptation(reset=True))
        self.once("adapted, then tuned", lambda: self.perplexity(self.final()))
        self.once("straight from softmax", lambda: self.direct(scratch=False))
        self.once("from scratch", lambda: self.direct(scratch=True))
        self.once("sliding", self.sliding)
        self.once("levels", self.levels)
        self.once("leakage", self.leakage)
        self.once("noise", self.noise)
        self.draft.save(complete=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "gain_cell_attention.json")
    parser.add_argument("--steps", type=int, default=260, help="training steps of every variant")
    parser.add_argument("--tuned", type=int, default=60, help="those of them after adaptation")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="measure these entries of the record alone")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    Study(arguments).run()
