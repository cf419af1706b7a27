"""`cimphony sweep`: a study from its YAML file."""

from pathlib import Path
from typing import Annotated

import typer

from cimphony.cli.show import say, show
from cimphony.record import Record
from cimphony.report import Table
from cimphony.report.words import quantity
from cimphony.sweep import load_study, run_study
from cimphony.units import format_count

_SHOWN = 20


def sweep(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY.yaml", help="the definition of the study", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="where points go; default: runs/ and the study's name")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="processes, or actors on Ray; default: what cores and memory allow; 0: this process"),
    ] = None,
    ray: Annotated[bool, typer.Option("--ray", help="measure on Ray: on this machine, or at --ray-address")] = False,
    ray_address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="a Ray cluster, for example auto or ray://host:10001")
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="measure failed points again")] = False,
) -> None:
    """One question asked of many chips: a grid or a search, every point a record. The same command goes on.

    Points are kept as they come; after an interruption or a crash nothing is measured twice. Local processes share
    the work; `--ray` takes a cluster, with the same numbers.
    """
    asked = load_study(study)
    folder = out or Path("runs") / asked.name
    try:
        record = run_study(asked, folder, workers=workers, ray=ray_address or ray, retry_failed=retry_failed)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"; finished points are in {folder}; the same command goes on from there") from None
    _tell(record, folder)
    if not record.results["done"]:
        raise typer.Exit(1)


def _tell(record: Record, folder: Path) -> None:
    results = record.results
    failed = [row for row in results["points"] if row["status"] == "failed"]
    best = [row for row in results["points"] if row["digest"] in results["front"]]
    rows = best or [row for row in results["points"] if row["status"] == "done"]
    columns = (*record.settings["axes"], *record.settings["measures"])
    shown = tuple(tuple(_cells(row, record)) for row in rows[:_SHOWN])
    caption = f"{record.title}: {'the front, ' if best else ''}{len(rows)} of {results['done']} points"
    numeric = frozenset(range(len(record.settings["axes"]), len(columns)))
    note = f"and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    show(Table(caption, columns, shown, numeric, note=note))
    for row in failed[:3]:
        say(f"failed: {', '.join(f'{axis} {value}' for axis, value in row['axes'].items())}: {row['message']}")
    if failed:
        say(f"{len(failed)} points failed; their messages are in {folder / 'points'}; --retry-failed tries again")
    say(f"Study: {folder}; `cimphony report {folder}` makes a page of it")


def _cells(row: dict[str, object], record: Record) -> list[str]:
    measures, units = row["measures"], record.results["units"]
    assert isinstance(measures, dict)
    assert isinstance(row["axes"], dict)
    found = [_number(measures[name], unit) if name in measures else "-" for name, unit in units.items()]
    return [*map(str, row["axes"].values()), *found]


def _number(value: float, unit: str) -> str:
    return quantity(value, unit) if unit else format_count(value)
