"""Memory devices as data. How each behaves is in `cimphony.devices`, one file per technology.

Levels run from 0 to the top level of a cell (2^bits - 1); level 0 is the lowest conductance. Three kinds of
noise at three moments: programming (once per write), drift (with age), read (every read).
"""

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from cimphony.chip.part import Fraction, NonNegative, Part, Positive


class Stuck(Part):
    """Cells that cannot be programmed, drawn once per chip."""

    off: Fraction = Field(0.0, description="share of cells stuck at the lowest conductance")
    on: Fraction = Field(0.0, description="share of cells stuck at the highest conductance")


class IdealDevice(Part):
    """Every cell holds its level exactly, for ever."""

    kind: Literal["ideal"] = "ideal"
    stuck: Stuck | None = Field(None, description="stuck cells; none: every cell can be programmed")


class GaussianDevice(Part):
    """Gaussian errors with constant spread: level * (1 + m) + a."""

    kind: Literal["gaussian"] = "gaussian"
    multiplicative: NonNegative = Field(0.0, description="sd of the programming error, relative to the level")
    additive: NonNegative = Field(
        0.0, description="sd of the programming error, as a fraction of the conductance range"
    )
    read: NonNegative = Field(0.0, description="sd of the read noise of a cell, as a fraction of the conductance range")
    stuck: Stuck | None = Field(None, description="stuck cells; none: every cell can be programmed")


class PcmDevice(Part):
    """Phase-change memory: the statistical model of a million-device array (Joshi 2020; aihwkit PCMLikeNoiseModel)."""

    kind: Literal["pcm"] = "pcm"
    g_max: Positive = Field(
        25e-6, description="highest conductance [S], for the drop along wires alone: the published noise scales with it"
    )
    programming: NonNegative = Field(1.0, description="scale of the published programming noise, 1 as measured")
    drift: NonNegative = Field(1.0, description="scale of the published drift exponent, 1 as measured")
    read: NonNegative = Field(1.0, description="scale of the published 1/f read noise, 1 as measured")
    stuck: Stuck | None = Field(None, description="stuck cells; none: every cell can be programmed")


class RramDevice(Part):
    """RRAM with state-dependent relaxation (Wan 2022, as fitted in aihwkit ReRamWan2022NoiseModel)."""

    kind: Literal["rram"] = "rram"
    g_min: NonNegative = Field(0.0, description="lowest conductance [S]")
    g_max: Positive = Field(40e-6, description="highest conductance [S]; the published fit is for 40e-6")
    programming: NonNegative = Field(1.0, description="scale of the published spread one second after programming")
    drift: NonNegative = Field(
        1.0, description="scale of the published growth of that spread until one and two days, 1 as measured"
    )
    read: NonNegative = Field(0.01, description="log-normal read noise: sd of the logarithm of a cell's conductance")
    stuck: Stuck | None = Field(None, description="stuck cells; none: every cell can be programmed")


class StateSpread(Part):
    """A spread that grows as a power of the conductance up to a level: sd = exp(exponent ln min(G, top) + offset).

    Conductance and spread in uS, as published (Mao et al. 2022; NL-DPE, arXiv 2511.13950, equation 5).
    """

    exponent: NonNegative = Field(description="of the conductance")
    offset: float = Field(description="natural logarithm of the spread [uS] at 1 uS")
    top: Positive = Field(description="conductance above which the spread stays the same [S]")


class LogLinearDevice(Part):
    """RRAM whose spread depends on its state as a power law, without drift (TaOx of NL-DPE, arXiv 2511.13950)."""

    kind: Literal["log_linear"] = "log_linear"
    g_min: NonNegative = Field(default=0.0, description="lowest conductance [S]")
    g_max: Positive = Field(default=150e-6, description="highest conductance [S]")
    programming: StateSpread | None = Field(
        default=StateSpread(exponent=0.95, offset=-1.86, top=2e-6),
        description="error of a written conductance; the released constants; none: written exactly",
    )
    read: StateSpread | None = Field(
        default=StateSpread(exponent=0.98, offset=-3.1, top=10e-6),
        description="noise of a read at the written conductance; the released constants; none: quiet",
    )
    scale: NonNegative = Field(default=1.0, description="of both spreads, 1 as measured")
    stuck: Stuck | None = Field(default=None, description="stuck cells; none: every cell can be programmed")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.g_min >= self.g_max:
            raise ValueError(f"g_min = {self.g_min:g} S must be below g_max = {self.g_max:g} S")
        return self


def _in_siemens(conductance: float) -> float:
    if conductance > 0.01:
        raise ValueError(f"{conductance:g} S is no conductance of a cell: 25 uS is 25.0e-6")
    return conductance


Siemens = Annotated[float, Field(ge=0), AfterValidator(_in_siemens)]


class MeasuredLevel(Part):
    """What cells meant to hold one conductance were measured to hold."""

    target: Siemens = Field(description="conductance that was asked for [S]")
    mean: Siemens = Field(description="mean over cells after programming [S]")
    sd: Siemens = Field(description="standard deviation over cells after programming [S]")
    read: Siemens = Field(0.0, description="standard deviation of one cell over reads [S]")


class PowerLawDrift(Part):
    """Conductance above the lowest level falls as (t / since)^-nu, nu drawn once for each cell."""

    exponent: float = Field(description="mean of nu")
    spread: NonNegative = Field(0.0, description="standard deviation of nu over cells")
    since: Positive = Field(1.0, description="time after programming at which the levels were measured [s]")


class MeasuredDevice(Part):
    """A device given by its measured levels; between them mean and spreads are interpolated linearly.

    The lowest target is level 0, the highest is the top level, whatever number of bits a cell holds.
    """

    kind: Literal["measured"] = "measured"
    levels: tuple[MeasuredLevel, ...] = Field(
        min_length=2, description="by rising target; in a chip file also the name of a CSV file with these columns"
    )
    programming: NonNegative = Field(1.0, description="scale of (mean - target) and sd, 1 as measured")
    drift: PowerLawDrift | None = Field(None, description="what age does; none: nothing")
    read: NonNegative = Field(1.0, description="scale of the read noise, 1 as measured")
    stuck: Stuck | None = Field(None, description="stuck cells; none: every cell can be programmed")

    @model_validator(mode="after")
    def _check(self) -> Self:
        targets = [level.target for level in self.levels]
        if any(after <= before for before, after in pairwise(targets)):
            raise ValueError(f"levels must rise by target, not {', '.join(f'{one:g}' for one in targets)} S")
        return self

    @property
    def g_min(self) -> float:
        """Conductance of level 0 [S]."""
        return self.levels[0].target

    @property
    def g_max(self) -> float:
        """Conductance of the top level [S]."""
        return self.levels[-1].target


Device = Annotated[
    IdealDevice | GaussianDevice | PcmDevice | RramDevice | LogLinearDevice | MeasuredDevice,
    Field(discriminator="kind"),
]
