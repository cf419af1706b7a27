"""What commands print: tables and one-line errors, in colour where the terminal has it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rich.table
import typer
from rich import box
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from cimphony.errors import CimphonyError
from cimphony.report import Table

_WIDE = 240


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


@contextmanager
def keeping(folder: Path) -> Iterator[None]:
    """Ctrl-C inside says where the finished points are."""
    try:
        yield
    except KeyboardInterrupt:
        kept = any(folder.glob("*.json"))
        place = (
            f"finished points are in {folder}; the same command goes on from there" if kept else "nothing is finished"
        )
        raise KeyboardInterrupt(f"; {place}") from None


def complain(message: str) -> None:
    """One red line on stderr."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(Text(message, style="red"))


def say(message: str) -> None:
    """One line on stdout."""
    Console(soft_wrap=True, highlight=False).print(Text(message))


def show(table: Table, one_line: bool = False) -> None:
    """A table of the library as a rich one; `one_line` cuts long text instead of wrapping it."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDE)  # a file or a pipe has no width to fit
    drawn = rich.table.Table(title=Text(table.caption), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for position, name in enumerate(table.columns):
        number, last = position in table.numeric, position == len(table.columns) - 1
        widest = max((len(row[position]) for row in table.rows), default=0)
        drawn.add_column(
            Text(name),
            justify="right" if number else "left",
            min_width=widest if number or position == 0 else None,
            no_wrap=one_line and last,
        )
    for row in table.rows:
        drawn.add_row(*map(Text, row))
    console.print(drawn)
