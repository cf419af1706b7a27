"""`cimphony adapt`: co-design methods on a model of your own, measured on chips beside the model as it came."""

import copy
import hashlib
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cimphony.chip import Chip, CrossbarUnit, load_chip
from cimphony.cli.show import Commands, keeping, say, show
from cimphony.errors import DataError
from cimphony.report import accuracy_table, write_report

if TYPE_CHECKING:
    from cimphony.papers.hyflexpim_studies import Task

adapt_app = typer.Typer(cls=Commands, no_args_is_help=True, rich_markup_mode="markdown")


Model = Annotated[str, typer.Argument(metavar="MODEL", help="a hub name, a folder, or 'demo'", show_default=False)]
Data = Annotated[str, typer.Option(help="a text (see `cimphony run`), or with --task the folder of GLUE tasks")]
GlueTask = Annotated[str | None, typer.Option(help="GLUE task: CoLA, MRPC, SST-2, STS-B; without it, a text")]
TrainEpochs = Annotated[int, typer.Option(min=0, help="passes before, for a model whose head is new")]
MaxTokens = Annotated[int, typer.Option(min=64, help="of a text: three quarters to tune on, the rest held out")]
Out = Annotated[Path | None, typer.Option(metavar="FOLDER", help="default runs/adapt-MODEL")]
Reads = Literal["exact", "effective"]
By = Literal["gradient", "sensitivity", "singular_value", "magnitude", "random"]


@adapt_app.callback()
def adapt() -> None:
    """Change a model so that it suits a chip better; measure it on chips beside the model as it came."""


@adapt_app.command(
    "gradient-redistribution",
    epilog="Examples: `cimphony adapt gradient-redistribution demo --data demo --slc-rate 0.1`; "
    "`cimphony adapt gradient-redistribution ./my-bert --data ./glue --task MRPC`",
)
def gradient_redistribution(
    model: Model,
    data: Data,
    slc_rate: Annotated[float, typer.Option(min=0, max=1, help="share of the ranks kept in 1-bit cells")] = 0.1,
    by: Annotated[By, typer.Option(help="which ranks these are; gradient: the paper's; singular_value does better")] = (
        "gradient"
    ),
    task: GlueTask = None,
    chip: Annotated[str, typer.Option(metavar="NAME|PATH", help="a chip with 1-bit and 2-bit cells")] = "hyflexpim",
    epochs: Annotated[int, typer.Option(min=1, help="passes over the data after SVD")] = 1,
    lr: Annotated[float, typer.Option(help="learning rate of these passes")] = 2e-5,
    train_epochs: TrainEpochs = 0,
    seeds: Annotated[int, typer.Option(min=1, help="chips to make")] = 5,
    fidelity: Annotated[Reads | None, typer.Option(help="default: the chip's own")] = None,
    max_tokens: MaxTokens = 1 << 15,
    out: Out = None,
) -> None:
    """HyFlexPIM's method: SVD of every linear layer, fine-tuning, the ranks that matter most in reliable cells.

    Writes the adapted model (for `cimphony run` and `cim.load_model`), a record of each model on the chips, a report.
    An interrupted run goes on.
    """
    chosen, work = _at_rate(load_chip(chip), slc_rate), _task(model, data, task, max_tokens)
    settings = {"data": data, "by": by, "epochs": epochs, "lr": lr, "train_epochs": train_epochs, **work.settings()}
    redistribute = partial(_redistribute, work, chosen, slc_rate, by, epochs, lr)
    _adapt(model, work, chosen, settings, redistribute, "redistributed", range(seeds), fidelity, out)


@adapt_app.command(
    "noise-aware",
    epilog="Examples: `cimphony adapt noise-aware demo --data demo --chip nl-dpe --steps 100 --lr 5e-4`; "
    "`cimphony adapt noise-aware ./my-bert --data ./glue --task MRPC --chip pcm-256`",
)
def noise_aware(
    model: Model,
    data: Data,
    task: GlueTask = None,
    chip: Annotated[str, typer.Option(metavar="NAME|PATH", help="any chip that runs models")] = "nl-dpe",
    steps: Annotated[int, typer.Option(min=1, help="batches, each on a chip of its own")] = 100,
    lr: Annotated[float, typer.Option(help="learning rate of these steps")] = 5e-5,
    peak: Annotated[float, typer.Option(min=0, help="weight of the largest |weight| in the loss")] = 1e-2,
    ranges: Annotated[
        float | None,
        typer.Option(min=0, help="rate at which ACAM ranges are trained; default 6 / steps, 0: as calibrated"),
    ] = None,
    train_epochs: TrainEpochs = 0,
    seeds: Annotated[int, typer.Option(min=1, help="chips to measure on; training takes others")] = 5,
    fidelity: Annotated[Reads | None, typer.Option(help="default: the chip's own; training reads effectively")] = None,
    max_tokens: MaxTokens = 1 << 15,
    out: Out = None,
) -> None:
    """Noise-aware fine-tuning: every step on another manufactured chip, then chips that training never saw.

    Writes the adapted model (for `cimphony run` and `cim.load_model`), a record of each model on the chips, a report.
    An interrupted run goes on.
    """
    from cimphony.methods.noise_aware import REACH

    chosen, work = load_chip(chip), _task(model, data, task, max_tokens)
    rates: dict[str, Any] = {"lr": lr, "peak": peak, "ranges": REACH / steps if ranges is None else ranges}
    settings = {"data": data, "steps": steps, **rates, "train_epochs": train_epochs, **work.settings()}
    tune = partial(_tune, work, chosen, steps, rates)
    _adapt(model, work, chosen, settings, tune, "tuned with noise", range(seeds), fidelity, out)


def _adapt(
    model: str, task: "Task", chip: Chip, settings: dict[str, Any], change: Callable[[Any, Path], tuple[Any, Any]],
    label: str, seeds: range, fidelity: Reads | None, out: Path | None,
) -> None:  # fmt: skip
    """Measure a model as it came (or trained) and as `change` leaves it on the chips; keep the second.

    `change` gives the model, and what it learned on chips: ranges and cell modes.
    """
    from cimphony.evaluate import evaluate_chips
    from cimphony.papers.hyflexpim_studies import Study

    folder = out or Path("runs") / f"adapt-{Path(model).name or 'model'}"
    key = hashlib.blake2b(repr((model, settings, chip)).encode(), digest_size=6).hexdigest()
    _check_writable(folder)  # before there is anything to lose
    with keeping(folder):
        dense = Study(task, folder / f"trained-{key}", epochs=settings["train_epochs"]).dense()
        adapted, learned = change(copy.deepcopy(dense), folder / f"tuning-{key}.safetensors")
        records = [
            evaluate_chips(
                one, lambda one: task.judge(task.outputs(one)), chip, seeds=seeds, fidelities=[fidelity],
                calibration=calibration or task.training(0)[:4], exclude=task.digital, metric_name=task.metric,
                settings=settings | {"name": f"{model} {name}"}, record_path=folder / f"{place}.json",
            )
            for one, name, place, calibration in (
                (dense, "as it came", "before", None), (adapted, label, "after", learned),
            )
        ]  # fmt: skip
    for record in records:
        say(record.settings["name"])
        show(accuracy_table([record]))
    say(f"Report: {write_report(records, folder / 'report.html')}")
    say(f"Model: {_save(adapted, learned, chip, task, folder / 'model', model)}")


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise DataError(f"--out {str(folder)!r} cannot be written: {error.strerror}; choose another folder") from None


def _at_rate(chip: Chip, slc_rate: float) -> Chip:
    name, unit = chip.policy.get("static_matmul", ""), chip.unit_for("static_matmul")
    if not isinstance(unit, CrossbarUnit) or unit.cell.slc_rate is None:
        raise DataError(f"chip {chip.name!r} has one cell mode; choose one with SLC and MLC cells, such as hyflexpim")
    return chip.replace({f"units.{name}.cell.slc_rate": slc_rate})


def _task(model: str, data: str, name: str | None, max_tokens: int) -> "Task":
    from cimphony.papers.hyflexpim_studies import Glue, Text

    if name is not None:
        return Glue(model, data, name)
    return Text("text", model, data, windows=None, max_tokens=max_tokens)


def _redistribute(
    task: "Task", chip: Chip, slc_rate: float, by: By, epochs: int, lr: float, model: Any, checkpoint: Path
) -> tuple[Any, Any]:
    """The digital model in factors, and a calibration with the cell modes of their ranks."""
    import torch

    from cimphony.evaluate.population import calibrate_on
    from cimphony.methods.gradient_redistribution import GradientRedistribution, assign_, decompose_, fuse_
    from cimphony.nn import calibration_of, convert_, restore_

    adapted = decompose_(model, exclude=task.digital)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # dropout
        GradientRedistribution(epochs, lr=lr).fit(adapted, task.training(0), checkpoint=checkpoint)
    assign_(convert_(fuse_(adapted), chip, exclude=task.digital), slc_rate, by)
    calibrate_on(adapted, task.training(0)[:4])
    learned = calibration_of(adapted)
    return restore_(adapted), learned


def _tune(task: "Task", chip: Chip, steps: int, rates: dict[str, Any], model: Any, checkpoint: Path) -> tuple[Any, Any]:
    """The digital model after steps on chips, and the calibration that it was tuned with."""
    import torch

    from cimphony.evaluate.population import calibrate_on
    from cimphony.methods.noise_aware import fit_
    from cimphony.nn import calibration_of, convert_, restore_

    adapted = convert_(model, _effective(chip), exclude=task.digital)
    calibrate_on(adapted, task.training(0)[:4])
    count = len(task.training(0))
    with torch.random.fork_rng():
        torch.manual_seed(0)  # dropout
        fit_(
            adapted, lambda step: task.training(step // count)[step % count], steps, **rates,
            checkpoint=checkpoint, save_every=20, progress=True,
        )  # fmt: skip
    learned = calibration_of(adapted)
    return restore_(adapted), learned


def _effective(chip: Chip) -> Chip:
    """The chip with effective reads where it has crossbars: what training can afford."""
    crossbar = isinstance(chip.unit_for("static_matmul"), CrossbarUnit)
    return chip.replace({f"units.{chip.policy['static_matmul']}.fidelity": "effective"}) if crossbar else chip


def _save(model: Any, learned: Any, chip: Chip, task: "Task", folder: Path, name: str) -> Path:
    from transformers import AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    from cimphony.nn import convert_, recalibrate_, save
    from cimphony.nn.architectures import quietly

    convert_(model, chip, exclude=task.digital)
    disable_progress_bar()  # of one file
    save(model if learned is None else recalibrate_(model, learned), folder)
    quietly(AutoTokenizer.from_pretrained, name).save_pretrained(folder)
    return folder
