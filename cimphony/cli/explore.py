"""`cimphony explore`: the page that turns the knobs of a chip."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from cimphony.chip import chip_names, load_chip
from cimphony.cli.show import say
from cimphony.explore import ExploreServer, Workbench


def explore(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="a hub name, a local Hugging Face folder, or 'demo'")
    ] = "demo",
    chip: Annotated[
        list[str] | None,
        typer.Option("--chip", metavar="NAME|PATH", help="the chip to begin with; a file of yours joins the presets"),
    ] = None,
    prompt: Annotated[int, typer.Option(min=1, help="tokens of the prompt")] = 128,
    new_tokens: Annotated[int, typer.Option(min=0, help="tokens generated after it")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="requests served together")] = 1,
    folder: Annotated[Path, typer.Option("--save", metavar="FOLDER", help="the only place chips are saved to")] = Path(
        "chips"
    ),
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one")] = 0,
    browser: Annotated[bool, typer.Option(help="open the page in a browser")] = True,
) -> None:
    """Turn the knobs of a chip on a page and watch energy, latency and area. Served on this machine only.

    The numbers are those of `cimphony cost`; a chip you like is saved as YAML into one folder, for every other command.
    """
    names = chip or ["hyflexpim"]
    chips = {name: load_chip(name) for name in dict.fromkeys([*names, *chip_names()])}
    start = {"chip": names[0], "prompt": prompt, "new_tokens": new_tokens, "batch": batch}
    with ExploreServer(Workbench(model, chips, folder), start, port) as server:
        say(f"Exploring {model}: {server.address}\nCtrl-C ends it.")
        if browser:
            webbrowser.open(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("Ended.")
