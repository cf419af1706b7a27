"""HyFlexPIM's accuracy experiments: measure a study point by point; stop and go on as you like.

    python papers/hyflexpim_accuracy.py SST-2 --model ENCODER --data GLUE_FOLDER --work WORK_FOLDER
    python papers/hyflexpim_accuracy.py gpt --work WORK_FOLDER
    python papers/hyflexpim_accuracy.py digits --work WORK_FOLDER

Fine-tuned weights stay in the work folder. Records go to papers/results; `cimphony reproduce hyflexpim` reads them.
"""

import argparse
import math
from pathlib import Path

import torch

from cimphony.papers.hyflexpim_accuracy import Grid, add_gradient_shares, run
from cimphony.papers.hyflexpim_studies import STAGES, Digits, Glue, Study, Task, Text

TUNED = STAGES[2:]
SETTINGS = {"MRPC": (3, 1e-4, None), "SST-2": (1, 5e-5, 12_000), "STS-B": (2, 1e-4, None)}  # epochs, lr, examples
GRIDS = {
    "main": [Grid(noises=("ber-4.04",), stages=TUNED)],
    "stages": [Grid(noises=("ber-4.04",), stages=STAGES[:2], rates=(0.0, 0.1, 0.5))],
    "decoder": [  # the paper states 20 % for decoders
        Grid(noises=("ber-4.04",), stages=TUNED, rates=(0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)),
        Grid(noises=("ber-4.04",), stages=STAGES[:2], rates=(0.0, 0.1, 0.3)),
        Grid(noises=("wan",), stages=TUNED, rates=(0.0, 0.1, 0.2, 0.5, 1.0)),
        Grid(noises=("released",), stages=TUNED, rates=(0.0, 0.2)),
    ],
    "wan": [
        Grid(
            noises=("wan",),
            stages=TUNED,
            ways=("sensitivity", "gradient", "singular_value"),
            rates=(0.0, 0.1, 0.5, 1.0),
        )
    ],
    "released": [Grid(noises=("released",), stages=TUNED, ways=("gradient",), rates=(0.0, 0.05, 0.1))],
    "random": [Grid(noises=("ber-4.04",), stages=TUNED, ways=("random",), rates=(0.1,))],
    "inputs": [
        Grid(noises=("ber-4.04",), stages=TUNED, ways=("sensitivity",), rates=(0.5, 1.0), variant=one)
        for one in ("static inputs", "float inputs")
    ],
    "exact": [
        Grid(noises=(noise,), stages=TUNED, ways=("sensitivity",), rates=(0.0, 0.5, 1.0), fidelity=fidelity)
        for noise in ("ber-4.04", "wan", "preset")
        for fidelity in ("exact", "effective")
    ],
    "attention": [
        Grid(noises=("ber-4.04",), stages=TUNED, ways=("sensitivity",), rates=(0.5, 1.0), variant="digital attention")
    ],
}


def study(arguments: argparse.Namespace) -> Study:
    name, work = arguments.task, arguments.work
    if name in SETTINGS:
        epochs, lr, train = SETTINGS[name]
        task: Task = Glue(arguments.model, arguments.data, name, train=train, dev=arguments.batches)
        return Study(task, work, epochs=epochs, lr=lr)
    if name == "digits":
        return Study(Digits(), work, epochs=20, lr=1e-3, redistribution_epochs=3)
    task = Text(name, arguments.model or "demo", arguments.data or "demo")
    return Study(task, work, epochs=0, lr=5e-4, redistribution_epochs=3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", help=f"{', '.join(SETTINGS)}, digits, or a name for a decoder on a text")
    parser.add_argument("--model", help="folder or hub name")
    parser.add_argument("--data", help="GLUE folder, or a text")
    parser.add_argument("--work", type=Path, required=True, help="folder for fine-tuned weights")
    parser.add_argument("--grid", nargs="+", default=["main"], choices=[*GRIDS, "shares"])
    parser.add_argument("--batches", type=int, help="about so many batches of the dev set; default all")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so long")
    parser.add_argument("--out", type=Path, help="the record; default papers/results/hyflexpim-TASK.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    out = arguments.out or Path(__file__).parent / "results" / f"hyflexpim-{arguments.task.lower()}.json"
    chosen = study(arguments)
    grids = [grid for name in arguments.grid if name != "shares" for grid in GRIDS[name]]
    record = run(chosen, out, grids, minutes=arguments.minutes)
    if "shares" in arguments.grid:
        record = add_gradient_shares(chosen, out)
    points = record.results["points"]
    print(f"{out}: {len(points)} points, {record.duration:.0f} s, {'complete' if record.complete else 'stopped'}")


if __name__ == "__main__":
    main()
