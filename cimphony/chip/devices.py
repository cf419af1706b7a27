"""Memory devices as data. How each behaves is in `cimphony.devices`, one file per technology.

Levels run from 0 to the top level of a cell (2^bits - 1); level 0 is the lowest conductance. Three kinds of
noise at three moments: programming (once per write), drift (with age), read (every read).
"""

from typing import Annotated, Literal

from pydantic import Field

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
    g_max: Positive = Field(25e-6, description="highest conductance [S]; the published fit is for 25e-6")
    programming: NonNegative = Field(1.0, description="scale of the published programming noise, 1 as measured")
    drift: NonNegative = Field(1.0, description="scale of the published drift exponent, 1 as measured")
    read: NonNegative = Field(1.0, description="scale of the published 1/f read noise, 1 as measured")
    stuck: Stuck | None = Field(None, description="stuck cells; none: every cell can be programmed")


class RramDevice(Part):
    """RRAM with state-dependent relaxation (Wan 2022, as fitted in aihwkit ReRamWan2022NoiseModel)."""

    kind: Literal["rram"] = "rram"
    g_min: NonNegative = Field(0.0, description="lowest conductance [S]")
    g_max: Positive = Field(40e-6, description="highest conductance [S]; the published fit is for 40e-6")
    programming: NonNegative = Field(1.0, description="scale of the published spread at one second, one and two days")
    read: NonNegative = Field(0.01, description="log-normal read noise: sd of the logarithm of a cell's conductance")
    stuck: Stuck | None = Field(None, description="stuck cells; none: every cell can be programmed")


Device = Annotated[IdealDevice | GaussianDevice | PcmDevice | RramDevice, Field(discriminator="kind")]
