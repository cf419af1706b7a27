"""A study as data: one question asked of many chips. Frozen, validated, torch-free; YAML in and out."""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from cimphony.chip import Chip, load_chip
from cimphony.chip.load import chip_from
from cimphony.chip.part import Count, Fraction, Part
from cimphony.chip.strict_yaml import parse_yaml
from cimphony.errors import DataError

Scalar = bool | int | float | str | None
Direction = Literal["min", "max"]
Axes = dict[str, Scalar]  # one point: axis -> value

# what a point can be measured by: unit and the better direction; functions given from Python are named freely
COST_MEASURES: dict[str, tuple[str, Direction]] = {
    "energy": ("J", "min"),
    "latency": ("s", "min"),
    "interval": ("s", "min"),
    "throughput": ("/s", "max"),
    "tokens_per_second": ("/s", "max"),
    "token_latency": ("s", "min"),
    "power": ("W", "min"),
    "area": ("m2", "min"),
    "chips": ("", "min"),
    "utilisation": ("", "max"),
    "costed": ("", "max"),  # share of the multiply-adds that a unit of the chip runs; the rest has no price
}
NUMBER_MEASURES: dict[str, tuple[str, Direction]] = {
    "perplexity": ("", "min"),
    "accuracy": ("", "max"),
    "yield": ("", "max"),
}
MEASURES = COST_MEASURES | NUMBER_MEASURES
_RESERVED = ("seed", "age", "fidelity", "chip", "model")
_CHIP_FIELDS = ("units", "links", "policy", "node", "voltage")
_GRID_LIMIT = 1_000_000


def _plain_axis(value: Any) -> Any:
    return {"values": value} if isinstance(value, list | tuple) else value


def _plain_measures(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        return value
    return {str(name): MEASURES[name][1] if name in MEASURES else None for name in cast(list[str], value)}


def _plain_text(value: Any) -> Any:
    return {"text": value} if isinstance(value, str) else value


class Axis(Part):
    """What is varied: a list of values, or a range that a search draws from and a grid divides into `count` values."""

    fields: tuple[str, ...] = Field((), description="what the value is written to; empty: the name of the axis")
    values: tuple[Scalar, ...] | None = Field(None, description="the values, in the order of the figures")
    low: float | None = Field(None, description="range only: lowest value")
    high: float | None = Field(None, description="range only: highest value")
    log: bool = Field(False, description="range only: even steps of the logarithm")
    whole: bool = Field(False, description="range only: whole numbers")
    count: Annotated[int, Field(ge=2)] = Field(5, description="range only: values of a grid")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.values is None) == (self.low is None or self.high is None):
            raise ValueError("give either values, or low and high")
        if self.values is not None and (not self.values or len(set(map(repr, self.values))) < len(self.values)):
            raise ValueError("values must hold at least one value, each once")
        if self.low is not None and self.high is not None and not (0 if self.log else -math.inf) < self.low < self.high:
            raise ValueError(f"low = {self.low} must be below high = {self.high}, and above 0 where log is true")
        return self

    def grid(self) -> tuple[Scalar, ...]:
        """The values that a grid takes."""
        if self.values is not None:
            return self.values
        return tuple(dict.fromkeys(self.at(step / (self.count - 1)) for step in range(self.count)))

    def at(self, share: float) -> Scalar:
        """The value at a share of the way, 0 to 1; below 1 where there is a list."""
        if self.values is not None:
            return self.values[min(int(share * len(self.values)), len(self.values) - 1)]
        assert self.low is not None
        assert self.high is not None
        if share in (0.0, 1.0):
            value = self.high if share else self.low
        elif self.log:
            value = self.low * (self.high / self.low) ** share
        else:
            value = self.low + (self.high - self.low) * share
        return round(value) if self.whole else value


class Data(Part):
    """What numbers are measured on: a text for perplexity, or a GLUE task for accuracy."""

    text: str | None = Field(None, description="as in load_text: demo, a .txt or .jsonl file, a hub dataset")
    max_tokens: Annotated[int, Field(ge=2)] = Field(4096, description="tokens of the text that are scored")
    window: Annotated[int, Field(ge=2)] | None = Field(
        None, description="tokens the model sees at once; none: what it has positions for, at most 256"
    )
    task: str | None = Field(None, description="a GLUE task, for example SST-2; its metric is the accuracy")
    folder: str | None = Field(None, description="task only: where the GLUE files are")
    examples: Count | None = Field(None, description="task only: examples of the dev split; none: all")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.text is None) == (self.task is None) or (self.task is None) != (self.folder is None):
            raise ValueError("give either text, or task with the folder of its files")
        return self


class Work(Part):
    """The request that is costed, as in `trace`."""

    model: str | None = Field(None, description="costed in place of the study's model, for example a larger shape")
    prompt: Count = Field(128, description="tokens of the prompt")
    new_tokens: Annotated[int, Field(ge=0)] = Field(0, description="tokens generated after it")
    batch: Count = Field(1, description="requests served together")


class Population(Part):
    """How many manufactured chips a point is measured on, and when that is enough."""

    seeds: Count = Field(3, description="chips of every point: seeds 0, 1, ...; ignored where seed is an axis")
    most: Count | None = Field(None, description="go on until the interval is as narrow as precision, to this many")
    precision: Annotated[float, Field(gt=0)] | None = Field(
        None, description="half width of the mean's interval over the mean that is narrow enough"
    )
    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(0.95, description="of the interval")
    within: Fraction = Field(0.05, description="a chip is good where it is this much worse than digital, at most")

    @model_validator(mode="after")
    def _stops(self) -> Self:
        if (self.most is None) != (self.precision is None):
            raise ValueError("sequential stopping needs both most and precision")
        if self.most is not None and self.most < self.seeds:
            raise ValueError(f"most = {self.most} must be at least seeds = {self.seeds}")
        return self


class Method(Part):
    """How the cells of a chip with two modes are shared out: gradient redistribution's rules (`methods`)."""

    rank: Literal["hard"] | int | float | None = Field(
        None, description="decompose linear layers to this rank first, as decompose_; none: the model as it is"
    )
    by: Literal["gradient", "sensitivity", "singular_value", "magnitude", "random"] = Field(
        "magnitude", description="what orders the ranks, as assign_"
    )
    slc_rate: Fraction | None = Field(None, description="share of ranks in SLC cells; none: the chip's own rule")


class Search(Part):
    """Which points are measured: all of the grid, some at random, or those that Optuna proposes."""

    kind: Literal["grid", "random", "optuna"] = "grid"
    points: Count | None = Field(None, description="random and optuna: how many points are measured")
    seed: Annotated[int, Field(ge=0)] = Field(0, description="of the draws")
    batch: Count = Field(4, description="optuna: points proposed together; decides what is found, workers do not")
    sampler: Literal["tpe", "nsga2"] = Field("tpe", description="optuna: its sampler")
    storage: str | None = Field(None, description="optuna: a database URL; none: a journal in the study's folder")

    @model_validator(mode="after")
    def _counted(self) -> Self:
        if (self.points is None) != (self.kind == "grid"):
            raise ValueError("points is for kind random or optuna, which need it; a grid has all its points")
        return self


class Study(Part):
    """One question asked of many chips: what is held, what is varied, what is measured, which points."""

    name: str = Field(min_length=1, max_length=80)
    question: str = Field("", description="what the study is to answer, one sentence for the report")
    model: str = Field("demo", description="demo, a local Hugging Face folder or a hub name")
    data: Annotated[Data, BeforeValidator(_plain_text)] = Field(
        Data.model_validate({"text": "demo"}), description="what numbers are measured on"
    )
    chip: str | dict[str, Any] = Field(description="a preset, a file, or a description, which may say base")
    exclude: tuple[str, ...] = Field((), description="wildcards of layers that stay digital")
    workload: Work = Work.model_validate({})
    population: Population = Population.model_validate({})
    method: Method | None = None
    axes: dict[str, Annotated[Axis, BeforeValidator(_plain_axis)]] = Field(min_length=1)
    measures: Annotated[dict[str, Direction | None], BeforeValidator(_plain_measures)] = Field(
        min_length=1, description="name -> min or max; none: measured, but not a goal"
    )
    search: Search = Search.model_validate({})

    @model_validator(mode="after")
    def _axes_lead_somewhere(self) -> Self:
        for name, axis in self.axes.items():
            for field in axis.fields or (name,):
                _check_field(name, field)
        if sum(map(math.log, (len(axis.grid()) for axis in self.axes.values()))) > math.log(_GRID_LIMIT):
            raise ValueError(f"the grid has more than {_GRID_LIMIT:,} points; use search: {{kind: random, points: N}}")
        if self.search.kind == "optuna" and not self.goals:
            raise ValueError("search kind optuna needs a measure with a direction, for example energy: min")
        return self

    @property
    def goals(self) -> dict[str, Direction]:
        """The measures with a direction."""
        return {name: way for name, way in self.measures.items() if way is not None}

    @property
    def numbers(self) -> list[str]:
        """The measures that need a model with weights."""
        return [name for name in self.measures if name not in COST_MEASURES]

    def fields(self, axis: str) -> tuple[str, ...]:
        """What an axis writes to."""
        return self.axes[axis].fields or (axis,)

    def grid(self) -> Iterator[Axes]:
        """Every combination of the axes' values; the last axis turns fastest."""
        for values in itertools.product(*(axis.grid() for axis in self.axes.values())):
            yield dict(zip(self.axes, values, strict=True))

    def base_chip(self) -> Chip:
        """The chip that the axes change. Raises ChipError where there is none."""
        return load_chip(self.chip) if isinstance(self.chip, str) else chip_from(self.chip)

    def to_yaml(self) -> str:
        """The whole definition as YAML; `load_study` reads it back to an equal study."""
        data = self.model_dump(mode="json", exclude_defaults=True)
        return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def of_chip(field: str) -> bool:
    """Whether an axis writes this field of the chip."""
    return field.partition(".")[0] in _CHIP_FIELDS


def _check_field(axis: str, field: str) -> None:
    head, _, rest = field.partition(".")
    options: dict[str, type[Part]] = {"workload": Work, "method": Method}
    if head in options:
        known = tuple(options[head].model_fields)
        if rest not in known:
            raise ValueError(f"axis {axis!r}: {field!r} is unknown; {head} has {', '.join(known)}")
    elif field not in _RESERVED and not of_chip(field):
        raise ValueError(
            f"axis {axis!r}: {field!r} is unknown; choose {', '.join(_RESERVED)}, workload.*, method.*, or a field of "
            f"the chip that begins with {', '.join(_CHIP_FIELDS)}"
        )


def load_study(path: str | Path) -> Study:
    """A study from its YAML file. Chips that are files are taken in, so the study stands alone.

    Raises DataError with one sentence where the file is missing, no YAML mapping, or a field is not valid.
    """
    path = Path(path)
    try:
        data = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"study {str(path)!r} cannot be read: {error}") from None
    except ValueError as error:
        raise DataError(f"study {str(path)!r} is not valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise DataError(
            f"study {str(path)!r} is a mapping of fields, not {type(data).__name__}; start with 'name: ...'"
        )
    return make_study(cast(dict[str, Any], data), path.parent, str(path))


def make_study(data: dict[str, Any], folder: Path | None = None, where: str = "") -> Study:
    """A study from plain data; `folder` is where chip files are looked for."""
    data = dict(data)
    chip = data.get("chip")
    if isinstance(chip, dict):
        data["chip"] = chip_from(cast(dict[str, Any], chip), folder).model_dump(mode="json")
    elif isinstance(chip, str) and folder is not None and (folder / chip).is_file():
        data["chip"] = load_chip(folder / chip).model_dump(mode="json")
    try:
        return Study.model_validate(data)
    except ValidationError as error:
        raise DataError(f"study {where or data.get('name')!r}: {_sentence(error)}") from None


def _sentence(error: ValidationError) -> str:
    """The first error: the field, the value, what is allowed; and how many more there are."""
    first, others = error.errors(include_url=False)[0], error.error_count() - 1
    field = ".".join(str(part) for part in first["loc"])
    kind, message = first["type"], first["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        known = ", ".join(Study.model_fields) if len(first["loc"]) == 1 else "see docs/studies.md"
        said = f"{field} is not a field ({known})"
    elif kind == "missing":
        said = f"{field} is missing"
    elif kind == "value_error":
        said = f"{field}: {message}" if field else message
    else:
        said = f"{field} = {first['input']!r} is not allowed: {message[0].lower() + message[1:]}"
    return said + (f" ({others} more {'error' if others == 1 else 'errors'} after this one)" if others else "")
