"""Records: what every run writes down, as JSON, one file, written atomically. Reports are made from records only."""

import json
import platform
import secrets
import statistics
import time
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cimphony.errors import DataError

_PACKAGES = ("cimphony", "torch", "transformers", "numpy")


class Record(BaseModel):
    """One run: its settings, the chip, what was really applied, the numbers, versions and duration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    kind: Literal["evaluation", "cost", "claims", "study", "point", "training"]
    title: str
    created: str = Field(description="UTC time the run began, ISO 8601")
    duration: float = Field(0.0, description="seconds")
    settings: dict[str, Any] = Field({}, description="everything needed to run it again")
    chip: dict[str, Any] | None = Field(None, description="the whole chip description")
    layers: list[dict[str, Any]] = Field(
        [], description="what was applied, layer by layer; what stayed digital and why"
    )
    results: dict[str, Any] = {}
    assumptions: list[str] = []
    complete: bool = Field(True, description="false: the run was interrupted; what is here is finished work")
    versions: dict[str, str] = {}


def new_record(kind: Any, title: str, **fields: Any) -> Record:
    """A record that begins now, with the versions of what runs."""
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return Record(kind=kind, title=title, created=created, versions=versions(), **fields)


def versions() -> dict[str, str]:
    """Versions of Python, the platform and the packages that decide a result."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


class Draft:
    """The record of a run that is under way: written after every result, gone on with where its file is there.

    Args:
        path: None: nothing is written.
        may_grow: settings that may differ from those in the file: what is to be measured.
        fields: of the record. Settings and chip decide whether the file is of this run; results are those of a run
            that begins.

    Raises DataError where the file is of another run.
    """

    def __init__(
        self, kind: Any, title: str, path: str | Path | None, *, may_grow: Collection[str] = (), **fields: Any
    ) -> None:
        as_read_back = json.loads(json.dumps(fields, default=str))
        self.record = new_record(kind, title, complete=False, **as_read_back)
        self._path, self._begun = path, time.perf_counter()
        if path is not None and Path(path).exists():
            old = read_record(path)
            for field, was, now in _differences(old, self.record, may_grow):
                raise DataError(
                    f"record {str(path)!r} is of another run: {field} was {was!r}, now it is {now!r}. "
                    "Give another record_path (command line: --out), or remove the file to start anew"
                )
            kept = old.model_dump(include={"created", "duration", "layers", "results", "assumptions", "complete"})
            self.record = self.record.model_copy(update=kept)
        self._before = self.record.duration

    @property
    def results(self) -> dict[str, Any]:
        """What is there so far."""
        return self.record.results

    def change(self, **fields: Any) -> None:
        """Change other fields of the record; the next result is saved with them."""
        self.record = self.record.model_copy(update=fields)

    def save(self, *, complete: bool = False, **results: Any) -> Record:
        """Write the record with these results in place of what they were."""
        duration = self._before + time.perf_counter() - self._begun
        self.change(results=self.results | results, duration=duration, complete=complete)
        if self._path is not None:
            write_record(self.record, self._path)
        return self.record


def _differences(old: Record, new: Record, may_grow: Collection[str]) -> Iterator[tuple[str, Any, Any]]:
    """(field, old, new) for what must be the same for a run to go on."""
    if old.kind != new.kind:
        yield "kind", old.kind, new.kind
    if old.chip != new.chip:
        yield "chip", (old.chip or {}).get("name"), f"{(new.chip or {}).get('name')} with other fields"
    for key in sorted({*old.settings, *new.settings} - {*may_grow}):
        if old.settings.get(key) != new.settings.get(key):
            yield f"settings.{key}", old.settings.get(key), new.settings.get(key)


def over_chips(values: Collection[float]) -> dict[str, Any]:
    """What a row of a record says of one measure over chips: sd is over the sample, None for one chip."""
    return {
        "chips": len(values),
        "mean": statistics.fmean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "min": min(values),
        "max": max(values),
    }


def write_record(record: Record, path: str | Path) -> Path:
    """Write atomically: the file is either the old or the new record, never half of one."""
    return write_text(record.model_dump_json(indent=1) + "\n", path, "record")


def write_text(text: str, path: str | Path, what: str) -> Path:
    """Write atomically; DataError, naming `what` it is, where the file cannot be written."""
    with written(path, what) as part:
        part.write_text(text, encoding="utf-8")
    return Path(path)


@contextmanager
def written(path: str | Path, what: str) -> Generator[Path]:
    """A file to write to, which takes the place of `path` once it is whole; DataError where that cannot be."""
    target = Path(path)
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            part.replace(target)
        finally:  # after a full disk, or Ctrl-C
            part.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{what} {str(target)!r} cannot be written: {error.strerror}; choose another folder") from None


def read_record(path: str | Path) -> Record:
    """A record from its file; DataError says what is wrong with one that is not a record."""
    return parse_record(_text(path), path)


def read_records(path: str | Path) -> list[Record]:
    """The records of a file (one, or JSON lines), or of a folder: of a study its points and its summary.

    Raises DataError for what cannot be read, is no record, or holds none.
    """
    place = Path(path)
    if place.suffix == ".jsonl":
        return [parse_record(line, f"{path}:{at}") for at, line in enumerate(_text(place).splitlines(), 1) if line]
    if not place.is_dir():
        return [read_record(place)]
    found = [read_record(file) for file in (*sorted(place.glob("*.json")), *sorted(place.glob("points/*.json")))]
    if not found:
        raise DataError(f"folder {str(path)!r} holds no records: neither *.json nor points/*.json")
    return found


def parse_record(text: str, source: str | Path) -> Record:
    """A record from its JSON; DataError names the source and what is wrong."""
    try:
        return Record.model_validate(json.loads(text))
    except json.JSONDecodeError as error:
        raise DataError(f"record {str(source)!r} is not JSON: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise DataError(f"record {str(source)!r} is not a Cimphony record: {field}: {first['msg']}") from None


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"record {str(path)!r} cannot be read: {error}") from None
