"""What every part of a chip description shares: frozen, strict about names, SI numbers."""

from typing import Annotated, Any, Literal, cast, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Mode = Literal["slc", "mlc"]
MODES: tuple[Mode, ...] = ("slc", "mlc")

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


def _in_metres(node: float) -> float:
    if node > 1e-5:
        raise ValueError(f"{node:g} m is no technology node: 22 nm is 22.0e-9")
    return node


Node = Annotated[float, Field(gt=0), AfterValidator(_in_metres)]


def _content(value: object) -> dict[str, object]:
    return cast(dict[str, object], value) if isinstance(value, dict) else {}


class Part(BaseModel):
    """A frozen piece of a chip: unknown fields, NaN, Inf and truth values for numbers are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, data: Any) -> Any:
        """`read: on` would be 1, all the noise there is."""
        for name, known in cls.model_fields.items():
            value = _content(data).get(name)
            inner = [*_content(value).values()] if get_origin(known.annotation) is dict else []
            if known.annotation is not bool and any(one is True or one is False for one in (value, *inner)):
                raise ValueError(f"{name}: yes, no, on, off, true and false are no numbers; give one, or null for none")
        return data


def needs(part: Part, field: str, where: str, *values: str) -> None:
    """ValueError for a field that is set although it changes nothing with what another one says."""
    value, usual, said = getattr(part, field), type(part).model_fields[field].default, getattr(part, where)
    if value != usual and said not in values:
        allowed = " or ".join(values)
        raise ValueError(f"{field} = {value} needs {where}: {allowed}, not {said}; or {field}: {usual}".lower())


def _for_every_mode(value: object) -> object:
    """A plain value means the same for SLC and MLC cells."""
    plain: Any = value
    if isinstance(plain, dict):
        keys = set(cast(dict[str, Any], plain))
        if keys <= set(MODES):
            return cast(dict[str, Any], plain)
        modes, others = sorted(keys & set(MODES)), sorted(keys - set(MODES))
        if modes:
            raise ValueError(
                f"{others[0]} stands beside {modes[0]}; say it within a mode, {modes[0]}: {{{others[0]}: ...}}"
            )
    return dict.fromkeys(MODES, cast(Any, value))


PER_MODE = BeforeValidator(_for_every_mode)


class Component(Part):
    """A circuit block as data: what each action costs, how large it is, where the numbers come from."""

    energy: dict[str, NonNegative] = Field({}, description="energy of one action [J], by the name of the action")
    area: NonNegative = Field(0.0, description="area of one instance [m2]")
    leakage: NonNegative = Field(0.0, description="static power of one instance [W]")
    per: str = Field("array", description="what one instance serves: array, row, column, adc, module, pu, chip ...")
    node: Node | None = Field(None, description="technology node of the numbers [m]; none: the chip's own node")
    voltage: Positive | None = Field(None, description="supply voltage of the numbers [V]; none: the chip's own")
    source: str = Field("", description="where the numbers come from")
