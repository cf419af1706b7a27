"""Every command of `cimphony`. Torch is imported by the commands that need it, so that the others start at once."""

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer

from cimphony.chip import NON_IDEALITIES, Chip, chip_names, differences, load_chip
from cimphony.cli import runs
from cimphony.cli.adapt import adapt_app
from cimphony.cli.explore import explore
from cimphony.cli.show import Commands, say, show, telling
from cimphony.cli.sweep import sweep
from cimphony.record import Record, read_records, write_record
from cimphony.report import (
    Format,
    Table,
    accuracy_table,
    assumptions_of,
    claims_table,
    cost_table,
    mapping_table,
    series,
    write_report,
)
from cimphony.units import format_quantity, parse_seconds

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
    epilog="Start with `cimphony demo`. Every command explains itself: `cimphony run --help`.",
)
chips_app = typer.Typer(
    cls=Commands,
    invoke_without_command=True,
    rich_markup_mode="markdown",
    epilog="Example: `cimphony chips show hyflexpim > mine.yaml`, edit, then `--chip mine.yaml`.",
)
app.add_typer(chips_app, name="chips")
app.add_typer(adapt_app, name="adapt")

NAMES = f"any of {','.join(NON_IDEALITIES)}, with commas"


ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="a hub name, a local Hugging Face folder, or 'demo'", show_default=False)
]
ChipNames = Annotated[
    list[str],
    typer.Option(
        "--chip", metavar="NAME|PATH", help="a preset or a YAML file; repeat it to compare", show_default=False
    ),
]


def main() -> None:
    """Entry point of the `cimphony` command."""
    # waiting threads of torch that spin cost two thirds of a busy machine; no result depends on it
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    app()


@app.callback()
def cimphony() -> None:
    """Run PyTorch and Hugging Face models on simulated analog compute-in-memory chips.

    From one chip description: does the model still work, and what does it cost?
    """


@app.command(epilog="Example: `cimphony demo --seeds 10`")
def demo(
    seeds: Annotated[int, typer.Option(min=1, help="chips to make of each kind")] = 5,
    max_tokens: Annotated[int, typer.Option(min=2, help="bytes of text to measure on")] = 4096,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="where records and report go")] = Path("runs/demo"),
) -> None:
    """Show the whole way on the embedded model: two chips, fresh and after a day, beside a GPU. About a minute or two.

    Measures the perplexity of a small byte-level GPT digitally and on simulated hyflexpim and pcm-256 chips, with
    every converter read simulated (exact) and with noisy weights only (effective); estimates the cost of a request;
    writes records and one HTML report.
    """
    chips = [load_chip(name) for name in ("hyflexpim", "pcm-256")]
    runs.forget_finished(out)
    say(f"Measuring digitally and on {seeds} + {seeds} simulated chips, fresh and after a day ...")
    records = runs.evaluate(
        "demo", chips, "demo", out,
        seeds=range(seeds), ages=(0.0, 86_400.0), fidelities=("exact", "effective"), max_tokens=max_tokens,
    )  # fmt: skip
    cost_record = runs.cost("demo", [*chips, load_chip("gpu-h100")], prompt=128, new_tokens=128, batch=1)
    write_record(cost_record, out / "cost.json")
    _finish([*records, cost_record], out / "report.html", "A small GPT on two analog chips")


@app.command(
    epilog="Examples: `cimphony run demo --chip pcm-256 --age 1d --seeds 5`; "
    "`cimphony run ./my-llama --chip mine.yaml --data notes.txt --exclude lm_head`; "
    "`cimphony run ./my-qwen3 --chip pcm-256 --tasks gsm8k --limit 100 --mode thinking --only programming`"
)
def run(
    model: ModelName,
    chip: ChipNames,
    data: Annotated[
        str, typer.Option(help="a .txt or .jsonl file (also .gz), a hub dataset name:config:split, or 'demo'")
    ] = "demo",
    seeds: Annotated[int, typer.Option(min=1, help="chips to make of each kind: one draw of noise each")] = 3,
    fidelity: Annotated[
        Literal["exact", "effective", "both"] | None,
        typer.Option(help="exact: every read converted; effective: noisy weights only. Default: the chip's own"),
    ] = None,
    age: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TIME",
            help="also measure this long after programming: 20s, 5min, 2h, 1d, 1w, 1y; repeat it for more",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="layers that stay digital; * is a wildcard; repeatable")
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|PATH,...",
            help="instead of perplexity: .jsonl files of prompts and answers, lm-eval tasks, or YAML files or folders "
            "of such tasks (pip install 'cimphony[lm-eval]'), with commas or repeated",
        ),
    ] = None,
    mode: Annotated[
        Literal["direct", "thinking"] | None,
        typer.Option(help="tasks: ask for the answer at once, or let the model think first"),
    ] = None,
    shots: Annotated[int | None, typer.Option(min=0, help="tasks: demonstrations before each question")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="tasks: only so many questions of each")] = None,
    only: Annotated[str | None, typer.Option(metavar="NAMES", help=f"switch everything else off: {NAMES}")] = None,
    without: Annotated[
        str | None, typer.Option(metavar="NAMES", help="switch these off, for example read,drift")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=2, help="measure on this many tokens of the text")] = 8192,
    ranges: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="text to learn ranges of inputs and converters from, as --data; default: the end of --data, behind "
            "--max-tokens where it is that long; of tasks, examples that are not asked where there are such",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="where records and report go; default runs/MODEL")
    ] = None,
) -> None:
    """Does the model still work? Perplexity or tasks, digital and on simulated chips, mean and spread over chip seeds.

    Records are written after every point. The same command goes on where an interrupted one stopped, and a larger
    --seeds or another --age adds to what is there.
    """
    chips = [runs.switched(load_chip(one), only, without) for one in chip]
    ages = sorted({0.0, *(parse_seconds(one) for one in age or ())})
    fidelities = ["exact", "effective"] if fidelity == "both" else [fidelity]
    folder = out or Path("runs") / (Path(model).name or "model")
    population: dict[str, Any] = {"seeds": range(seeds), "ages": ages, "fidelities": fidelities}
    population |= {"exclude": exclude or (), "ranges": ranges}
    if tasks:
        asking = {"mode": mode, "shots": shots, "limit": limit}
        named = [name for one in tasks for name in one.split(",")]
        records = runs.ask(model, chips, named, folder, asking, **population)
    else:
        records = runs.evaluate(model, chips, data, folder, max_tokens=max_tokens, **population)
    _finish(records, folder / "report.html", None)


@app.command(
    epilog="Examples: `cimphony cost demo --chip hyflexpim --chip gpu-h100`; "
    "`cimphony cost llama-3-70b --chip hyflexpim --prompt 1024 --new-tokens 128 --json`"
)
def cost(
    model: ModelName,
    chip: ChipNames,
    prompt: Annotated[int, typer.Option(min=1, help="tokens of the prompt")] = 128,
    new_tokens: Annotated[int, typer.Option(min=0, help="tokens generated after it")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="requests served together")] = 1,
    assumptions: Annotated[bool, typer.Option("--assumptions", help="also print all that was assumed")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print everything as JSON instead of a table")] = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="also write a record, for 'cimphony report'")] = None,
) -> None:
    """What does it cost? Energy, latency, throughput and area of one request, side by side. Nothing runs.

    Only shapes are needed, so models of any size work; the last chip is the one that the others are compared to.
    """
    record = runs.cost(model, [load_chip(one) for one in chip], prompt=prompt, new_tokens=new_tokens, batch=batch)
    if out:
        write_record(record, out)
    if as_json:
        typer.echo(json.dumps({key: record.results[key] for key in ("model", "reports")}, indent=1))
        return
    show(cost_table(record.results))
    found = assumptions_of([record])
    if not assumptions:
        say(f"{len(found)} assumptions are behind these numbers; --assumptions prints them")
    for one, of in found.items() if assumptions else ():
        say(f"{', '.join(of)}: {one}")


app.command(epilog="Example: `cimphony sweep studies/slc_rate.yaml --workers 4`")(sweep)
app.command(epilog="Example: `cimphony explore llama-3.2-1b --chip hyflexpim --prompt 1024 --save my-chips`")(explore)


@chips_app.callback()
def chips(context: typer.Context) -> None:
    """List the chips that come with the library; show one; print the schema of a chip file."""
    if context.invoked_subcommand is None:
        named = {name: load_chip(name) for name in chip_names()}
        rows = tuple((name, format_quantity(one.node, "m", 2), one.source) for name, one in named.items())
        show(Table("Chips", ("Name", "Node", "Source"), rows, frozenset((1,))), one_line=True)


@chips_app.command("show", epilog="Example: `cimphony chips show pcm-256`")
def chips_show(
    name: Annotated[str, typer.Argument(metavar="NAME|PATH", help="a preset or a YAML file", show_default=False)],
) -> None:
    """The whole description of a chip as YAML, ready to be edited."""
    typer.echo(load_chip(name).to_yaml(), nl=False)


@chips_app.command("schema", epilog="Example: `cimphony chips schema > chip.schema.json`")
def chips_schema() -> None:
    """The JSON schema of a chip file, from which editors complete and check."""
    typer.echo(json.dumps(Chip.model_json_schema(), indent=1))


@app.command(
    epilog="Examples: `cimphony report runs/demo/*.json -o demo.html`; `cimphony report runs/my-study -o study.html`"
)
def report(
    records: Annotated[
        list[Path], typer.Argument(metavar="RECORDS...", help="JSON files that runs wrote, or folders of studies")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="the file to write; default report.FORMAT")
    ] = None,
    form: Annotated[
        Format | None, typer.Option("--format", help="html: the page; md: its tables; csv, json: every number")
    ] = None,
    title: Annotated[str | None, typer.Option(help="heading of the report")] = None,
) -> None:
    """One self-contained HTML report of any records and studies: works offline, on a phone and on paper.

    The format is that of the file's ending where --format does not say it.
    """
    ending = out.suffix.lstrip(".") if out else ""
    chosen = form or (ending if ending in get_args(Format) else "html")
    found = [record for path in records for record in read_records(path)]
    say(f"Report: {write_report(found, out or Path(f'report.{chosen}'), title=title, form=chosen)}")


@chips_app.command("compare", epilog="Example: `cimphony chips compare hyflexpim hyflexpim-corrected`")
def chips_compare(
    one: Annotated[str, typer.Argument(metavar="NAME|PATH", help="a preset or a YAML file", show_default=False)],
    other: Annotated[str, typer.Argument(metavar="NAME|PATH", help="the chip to hold it against", show_default=False)],
) -> None:
    """Every field in which two chips differ."""
    rows = tuple(differences(load_chip(one), load_chip(other)))
    show(Table(f"{one} and {other} differ in {len(rows)} fields", ("Field", one, other), rows))


@app.command(epilog="Examples: `cimphony reproduce hyflexpim`; `cimphony reproduce hyflexpim --claims accuracy`")
def reproduce(
    paper: Annotated[str, typer.Argument(help="name of a paper, for example hyflexpim", show_default=False)],
    claims: Annotated[str | None, typer.Option(metavar="NAME", help="other claims: accuracy of hyflexpim")] = None,
    records: Annotated[Path | None, typer.Option(metavar="FOLDER", help="experiments they are held to")] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="where record and page go")] = Path("runs/papers"),
) -> None:
    """A paper's claims beside what comes out here, a verdict each; a record and a page with its figures redrawn."""
    from cimphony import papers

    with telling("cimphony.papers"):
        record = papers.reproduce(paper, claims, records)
    _keep_claims(record, out, f"{paper}-{claims}" if claims else paper)


@app.command(epilog="Example: `cimphony validate`")
def validate(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="where record and page go")] = Path("runs/papers"),
) -> None:
    """Five published macros: what was measured, what the cost model says, and which numbers were fitted."""
    from cimphony.papers import macros

    record = macros.record()
    _keep_claims(record, out, "macros")
    for name, found in record.results["held_out"].items():
        beyond = found["mean_with_not_modelled"]
        said = f"{found['points']} held-out points, mean error {found['mean']:.1%}, largest {found['largest']:.1%}"
        say(f"{macros.QUANTITIES[name]}: {said}; with what is not modelled {beyond:.1%}")


def _keep_claims(record: Record, folder: Path, name: str) -> None:
    write_record(record, folder / f"{name}.json")
    show(claims_table(record.results).without("Where", "Note"))
    if record.results.get("sensitivity"):
        show(mapping_table("What moves the ratios, one assumption changed", record.results["sensitivity"]))
    say(f"Report: {write_report([record], folder / f'{name}.html')}")


def _finish(records: list[Record], path: Path, title: str | None) -> None:
    for together in series(record for record in records if record.kind == "evaluation"):
        show(accuracy_table(together))
    for record in records:
        if record.kind == "cost":
            show(cost_table(record.results))
    say(f"Report: {write_report(records, path, title=title)}")
