"""A study's folder: `study.yaml`, one record for each point in `points/`, and `study.json`, which sums them up.

    study.yaml           the definition
    points/DIGEST.json   kind "point": settings {study, axes}, chip, results {measures, spread, per_seed, digital,
                         breakdown (energy by component), status: done | failed, message}
    study.json           kind "study": settings (the whole definition), chip (the base), results {points, units, front,
                         done, failed, reports (assumptions by chip)}; its duration is the points', added up; not
                         complete while points are missing

The records are the truth: they are written atomically, one for each point, and a point that has one is never measured
again. Everything else in the folder can be made from them.
"""

import hashlib
import json
import math
from collections.abc import Iterable
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from cimphony.errors import DataError
from cimphony.record import Record, new_record, read_record, write_record
from cimphony.sweep.fronts import front
from cimphony.sweep.study import MEASURES, Axes, Study, load_study

# what may change between runs in one folder: more points, other words; the rest decides what a point's numbers mean
_MAY_CHANGE = ("question", "axes", "search")
# what a row of study.json has of its point, so that the one file makes the whole report
_KEPT = ("measures", "spread", "per_seed", "digital", "breakdown", "status", "message")


def digest(axes: Axes) -> str:
    """The name of a point: 16 hexadecimal digits of its axes' values."""
    return hashlib.blake2b(json.dumps(axes, sort_keys=True).encode(), digest_size=8).hexdigest()


def point_record(study: Study, axes: Axes, chip: dict[str, Any] | None, results: dict[str, Any]) -> Record:
    """The record of one point, done or failed."""
    title = f"{study.name}: " + ", ".join(f"{name} {value}" for name, value in axes.items())
    filled = {"measures": {}, "spread": {}, "per_seed": [], "digital": {}, "status": "done", "message": ""} | results
    return new_record("point", title, settings={"study": study.name, "axes": axes}, chip=chip, results=filled)


def failed(study: Study, axes: Axes, message: str, chip: dict[str, Any] | None = None) -> Record:
    """The record of a point that could not be measured."""
    return point_record(study, axes, chip, {"status": "failed", "message": message})


class Store:
    """The folder of one study, open for writing by one run at a time, until it is closed."""

    def __init__(self, study: Study, folder: str | Path) -> None:
        """Make the folder, or go on with it.

        Raises DataError where it holds another study, another run writes to it, or it cannot be written.
        """
        self.study, self.folder = study, Path(folder)
        self.began = new_record("study", study.name)
        try:
            (self.folder / "points").mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.folder)
            with ExitStack() as failing:
                failing.push(self._lock)
                self._open()
                self.points = read_points(self.folder)
                failing.pop_all()  # opened: the lock is kept
        except OSError as error:
            raise DataError(
                f"study folder {str(self.folder)!r} cannot be written: {error.strerror}; choose another with --out"
            ) from None

    def _open(self) -> None:
        if (self.folder / "study.yaml").exists():
            self._go_on(load_study(self.folder / "study.yaml"))
        for left in (self.folder / "points").glob(".*.json.*"):  # half-written when something was killed
            left.unlink()
        definition = self.folder / "study.yaml.part"
        definition.write_text(self.study.to_yaml(), encoding="utf-8")
        definition.replace(self.folder / "study.yaml")

    def _go_on(self, old: Study) -> None:
        was, now = old.model_dump(mode="json"), self.study.model_dump(mode="json")
        for field in was:
            if field not in _MAY_CHANGE and was[field] != now[field]:
                said = "another chip" if field == "chip" else f"{was[field]!r}, now it is {now[field]!r}"
                raise DataError(
                    f"folder {str(self.folder)!r} holds another study: {field} was {said}. "
                    "Choose another folder with --out, or remove this one"
                )
        if {*was["axes"]} != {*now["axes"]} or any(old.fields(axis) != self.study.fields(axis) for axis in old.axes):
            raise DataError(
                f"folder {str(self.folder)!r} holds a study of the axes {', '.join(old.axes)}; now they are "
                f"{', '.join(self.study.axes)}. Values may be added, axes not: choose another folder with --out"
            )

    def close(self) -> None:
        """Let other runs have the folder."""
        self._lock.close()

    def put(self, record: Record) -> None:
        """Keep the record of a point."""
        name = digest(record.settings["axes"])
        write_record(record, self.folder / "points" / f"{name}.json")
        self.points[name] = record

    def forget_failed(self) -> int:
        """Remove failed points, so that they are measured again; how many there were."""
        names = [name for name, record in self.points.items() if record.results["status"] == "failed"]
        for name in names:
            (self.folder / "points" / f"{name}.json").unlink()
            del self.points[name]
        return len(names)

    def finish(self, wanted: Iterable[Axes], *, complete: bool) -> Record:
        """Write `study.json`: all points in the order of the axes, and the best of them; its duration is theirs."""
        order = [name for name in dict.fromkeys(map(digest, wanted)) if name in self.points]
        order += [name for name in sorted(self.points) if name not in set(order)]
        rows = [{"digest": name, **_row(self.points[name])} for name in order]
        done = [row for row in rows if row["status"] == "done"]
        study = self.study
        results = {
            "points": rows,
            "units": {name: MEASURES[name][0] if name in MEASURES else "" for name in study.measures},
            "front": [row["digest"] for row in front(done, study.goals, lambda row: row["measures"])],
            "done": len(done),
            "failed": len(rows) - len(done),
            "reports": _assumed(self.points.values()),
        }
        record = self.began.model_copy(
            update={
                "settings": study.model_dump(mode="json"),
                "chip": study.base_chip().model_dump(mode="json"),
                "results": results,
                "complete": complete,
                "duration": math.fsum(point.duration for point in self.points.values()),
                "created": min((point.created for point in self.points.values()), default=self.began.created),
                "assumptions": [],
            }
        )
        write_record(record, self.folder / "study.json")
        return record


def _locked(folder: Path) -> IO[str]:
    """The folder's lock, held until it is closed or its process ends, however it ends."""
    lock = (folder / ".lock").open("w", encoding="ascii")
    try:
        fcntl = import_module("fcntl")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise DataError(
            f"study folder {str(folder)!r} is in use by another run; wait for it, or choose another with --out"
        ) from None
    except (ImportError, OSError):  # a system, or a network's disk, that has no such locks
        pass
    return lock


def read_points(folder: str | Path) -> dict[str, Record]:
    """The records of a study's points by digest. Raises DataError for a file that is not one."""
    found: dict[str, Record] = {}
    for path in sorted((Path(folder) / "points").glob("[0-9a-f]*.json")):
        record = read_record(path)
        if record.kind != "point" or digest(record.settings.get("axes", {})) != path.stem:
            raise DataError(f"{path} is not the record of a point of a study; remove it")
        found[path.stem] = record
    return found


def _assumed(points: Iterable[Record]) -> list[dict[str, Any]]:
    """What was assumed of each chip, once."""
    found: dict[str, dict[str, None]] = {}
    for point in points:
        found.setdefault((point.chip or {}).get("name", ""), {}).update(dict.fromkeys(point.assumptions))
    return [{"chip": name, "assumptions": list(said)} for name, said in found.items() if said]


def _row(record: Record) -> dict[str, Any]:
    return {"axes": record.settings["axes"], **{name: record.results[name] for name in _KEPT if name in record.results}}
