"""Runs of a study in processes of their own, to be killed at any moment."""

import multiprocessing
import os
import time
from pathlib import Path

from cimphony.nn import analog_layers
from cimphony.sweep import read_points, run_study
from cimphony.sweep.study import Study
from tests.sweep.studies import ONE_LAYER, plain, study

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["cimphony.sweep.measure"])


def drawn(model) -> float:
    """What the noise of a chip adds up to: another number for every seed; cheaper than reading the chip."""
    return float(sum(layer.tiles[0].programmed.held.double().sum() for layer in analog_layers(model).values()))


def many(points: int) -> Study:
    """So many points, each with a chip of its own and a cost."""
    axes = {"units.analog.rows": [64, 128], "fidelity": ["effective"], "seed": list(range(points // 2))}
    return study(
        axes=axes, measures=["drawn", "energy"], exclude=ONE_LAYER, data={"text": "demo", "max_tokens": 16}, name="many"
    )


def go(asked: Study, folder: Path, mark: str = "", **how) -> None:
    """A whole run; whatever processes it starts carry the mark in their environment."""
    if mark:
        os.environ["CIMPHONY_MARK"] = mark
    run_study(asked, folder, functions={"drawn": drawn}, progress=False, **how)


def recorded(folder: Path) -> dict[str, str]:
    return {name: plain(record) for name, record in read_points(folder).items()}


def kill(asked: Study, folder: Path, after: int, wait: float, **how) -> dict[str, str]:
    """Begin or go on, and kill -9 some seconds after there are so many records; what there is then."""
    process = CONTEXT.Process(target=go, args=(asked, folder), kwargs=how)
    process.start()
    while len(list(folder.glob("points/[0-9a-f]*.json"))) < after and process.is_alive():
        time.sleep(0.002)
    time.sleep(wait)
    process.kill()
    process.join()
    assert process.exitcode == -9, f"it ended before it was killed: {process.exitcode}"
    return texts(folder)


def texts(folder: Path) -> dict[str, str]:
    """The records as they are on disk, with the clock."""
    return {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("points/[0-9a-f]*.json")}
