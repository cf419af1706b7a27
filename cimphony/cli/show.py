"""What commands print: tables and one-line errors, in colour where the terminal has it."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rich.table
import typer
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.text import Text
from typer.core import TyperGroup

from cimphony.errors import CimphonyError
from cimphony.report import Table

_WIDE = 400
_LONG = 40
_PATIENCE = 2.0  # s


class Commands(TyperGroup):
    """Commands whose expected errors are one red line, never a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; exit code 1 for what a user can put right, 130 for Ctrl-C."""
        try:
            return super().invoke(ctx)
        except CimphonyError as error:
            complain(f"error: {error}")
            raise typer.Exit(1) from None
        except KeyboardInterrupt as stop:
            complain(f"interrupted{stop.args[0] if stop.args else ''}")
            raise typer.Exit(130) from None


_KEPT = {"finished points": "*.json", "weights in training": "*.safetensors"}


@contextmanager
def keeping(folder: Path) -> Iterator[None]:
    """Ctrl-C inside says where the finished points are."""
    try:
        yield
    except KeyboardInterrupt:
        kept = [what for what, files in _KEPT.items() if any(folder.glob(files))]
        goes_on = f"{' and '.join(kept)} are in {folder}; the same command goes on from there"
        raise KeyboardInterrupt(f"; {goes_on if kept else 'nothing is finished'}") from None


class _Lines(logging.Handler):
    """Log messages as lines on stderr, the first and the next not before the patience of a reader is at its end."""

    def __init__(self) -> None:
        super().__init__()
        self._last = self._began = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        """One line with the time since the start."""
        now = time.monotonic()
        if now - self._last >= _PATIENCE:
            self._last = now
            line = Text(f"{now - self._began:4.0f} s  {record.getMessage()}", style="dim")
            Console(stderr=True, soft_wrap=True, highlight=False).print(line)


@contextmanager
def telling(logger: str) -> Iterator[None]:
    """Inside, long work says on stderr where it is, on a terminal or not."""
    log, handler = logging.getLogger(logger), _Lines()
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


def complain(message: str) -> None:
    """One red line on stderr."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(Text(message, style="red"))


def say(message: str) -> None:
    """One line on stdout."""
    Console(soft_wrap=True, highlight=False).print(Text(message))


def show(table: Table, one_line: bool = False) -> None:
    """A table of the library as a rich one; only long text is wrapped, or with `one_line` cut at the width."""
    drawn = rich.table.Table(
        title=Text(table.caption), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for position, name in enumerate(table.columns):
        whole = one_line or all(len(row[position]) <= _LONG for row in table.rows)
        drawn.add_column(Text(name), justify="right" if position in table.numeric else "left", no_wrap=whole)
    for row in table.rows:
        drawn.add_row(*map(Text, row))
    console = Console()
    if one_line and console.is_terminal:
        drawn.expand, drawn.columns[-1].ratio = True, 1
    elif not console.is_terminal or all(column.no_wrap for column in drawn.columns):
        console = Console(width=max(console.width, _natural_width(drawn)))
    console.print(drawn)
    if table.note:
        say(table.note)


def _natural_width(drawn: rich.table.Table) -> int:
    wide = Console(width=_WIDE)
    return Measurement.get(wide, wide.options, drawn).maximum
