"""Kill -9 at random moments of a study of 200 points, with local workers and on Ray: what is left of it.

    python benchmarks/sweep_kills.py [--ray] [--work FOLDER --minutes 7] [-o benchmarks/results/sweep_kills.json]

Each run is killed once so many points are recorded (drawn anew), a random moment of up to 0.1 s later, so that kills
fall into measuring and writing; every fourth is killed at a random moment of the first seconds, while workers start.
Of the local runs every third has two workers, the others measure in the process that is killed; on Ray all have two.
Then one run goes on to the end. No point may be lost, measured twice, or different from an uninterrupted run's; and
of the killed runs no process may be left. The results of both kinds stand in one file.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from cimphony.record import versions
from tests.sweep import killed

_POINTS, _STARTUP = 200, 0.7  # seconds
_OFTEN = 3  # of local runs, every so manyth has workers, which take long to start


def moments(count: int, drawn: random.Random) -> Iterator[tuple[int, float]]:
    """Records to wait for, and seconds after that."""
    counts = iter(sorted(drawn.sample(range(1, _POINTS - 10), count)))
    for number in range(count):
        after = next(counts)
        yield (0, drawn.uniform(0, _STARTUP)) if number % 4 == 2 else (after, drawn.uniform(0, 0.1))


def left_running(mark: str) -> int:
    """Processes that a killed run started, by the mark in their environment; they are given 20 seconds to go."""
    alive: list[Path] = []
    for _ in range(200):
        if not (alive := [path for path in Path("/proc").glob("[0-9]*") if _marked(path, mark)]):
            return 0
        time.sleep(0.1)
    return len(alive)


def _marked(process: Path, mark: str) -> bool:
    try:
        return f"CIMPHONY_MARK={mark}".encode() in (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def kills(work: Path, count: int, ray: bool, until: float) -> dict[str, Any] | None:
    """Torn as often as asked, then finished; None where the time is over before, and the next call goes on."""
    asked, state = killed.many(_POINTS), work / "state.json"
    found: dict[str, Any] = {"kills": [], "lost": 0, "twice": 0, "left": 0, "with_workers": 0}
    found = json.loads(state.read_text()) if state.exists() else found
    before = killed.texts(work / "torn")
    for after, wait in list(moments(count, random.Random(1)))[len(found["kills"]) :]:
        if time.time() > until:
            return None
        number = len(found["kills"])
        mark, workers = f"{work.name}-{number}", 2 if ray or number % _OFTEN == 0 else 0
        now = killed.kill(asked, work / "torn", after, wait, mark=mark, workers=workers, ray=ray)
        found["kills"].append(len(now))
        found["lost"] += len(before.keys() - now.keys())
        found["twice"] += sum(now[name] != text for name, text in before.items() if name in now)
        found["left"] += left_running(mark)
        found["with_workers"] += workers > 0
        state.write_text(json.dumps(found))
        before = now
        print(f"killed with {len(now)} of {_POINTS} points recorded", flush=True)
    killed.go(asked, work / "torn", workers=2, ray=ray)
    killed.go(asked, work / "whole", workers=0)
    records, whole = killed.recorded(work / "torn"), killed.recorded(work / "whole")
    return {
        "kills": len(found["kills"]), "kills_with_two_workers": found["with_workers"],
        "points_at_kill": found["kills"], "points_lost": found["lost"],
        "points_measured_twice": found["twice"], "processes_left": found["left"], "points": len(records),
        "equal_to_uninterrupted": records == whole, "versions": versions(),
    }  # fmt: skip


def main(chosen: argparse.Namespace) -> None:
    """Measure, print, and add to the file of results."""
    with tempfile.TemporaryDirectory() as place:
        work: Path = chosen.work or Path(place)
        work.mkdir(parents=True, exist_ok=True)
        result = kills(work, chosen.kills, chosen.ray, time.time() + 60 * chosen.minutes)
    print(json.dumps(result, indent=1))
    if result and chosen.output:
        old = json.loads(chosen.output.read_text()) if chosen.output.exists() else {}
        chosen.output.write_text(json.dumps(old | {"ray" if chosen.ray else "local": result}, indent=1) + "\n")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="kill a study at random moments")
    arguments.add_argument("--ray", action="store_true")
    arguments.add_argument("--kills", type=int, default=20)
    arguments.add_argument("--work", type=Path, help="kept, so that the same command goes on")
    arguments.add_argument("--minutes", type=float, default=60, help="stop after this long")
    arguments.add_argument("-o", "--output", type=Path)
    main(arguments.parse_args())
