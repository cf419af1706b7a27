"""Activations of implicit neural representations as pipelines, all with the same ports.

The input has 16 bits with 13 of fraction, -4 to 4, in units in which `quad` and the sines have period 4: range
reduction is then a dropped bit for all of them, which favours the sines (in radians they need a multiplication
more). The result has 14 bits of fraction.
"""

import math
from collections.abc import Callable

import numpy as np

from cimphony.hardware.pipeline import Build, Pipeline, Wire

INPUT_BITS, INPUT_FRACTION, OUTPUT_FRACTION = 16, 13, 14
_ONE = 1 << INPUT_FRACTION
_WORK = 16  # bits of fraction inside
_DIVIDE = 20  # and of a ratio, so that it stays exact near 0


def quad() -> Pipeline:
    """The quadratic activation as +-(1 - d^2), d = x - 1 wrapped into [-1, 1): one inverted bit, a square, one sum.

    Equal to r (2 - |r|) with r = x wrapped into [-2, 2). Within half a unit of the last place, 2^-15.
    """
    build = Build("quad", INPUT_BITS)
    build.stage("wrap")
    offset = (build.x - _ONE).wrap(INPUT_FRACTION + 1)
    sign = build.x.wrap(INPUT_FRACTION + 2).sign()
    build.stage("square")
    square = offset * offset
    build.stage("1 - d^2, round")
    y = (_ONE * _ONE - square).rounded(2 * INPUT_FRACTION - OUTPUT_FRACTION).wrap(OUTPUT_FRACTION + 2)
    return _signed(build, sign, y)


def lut(address_bits: int = 10) -> Pipeline:
    """sin(pi x / 2) from a table of a quarter wave, sampled at the middle of each step."""
    build = Build("lut", INPUT_BITS)
    build.stage("fold")
    half = build.x.low(INPUT_FRACTION + 1)
    folded = (half - _ONE).where_negative(half, ~half).low(INPUT_FRACTION)
    address = folded >> (INPUT_FRACTION - address_bits)
    sign = build.x.wrap(INPUT_FRACTION + 2).sign()
    build.stage("table")
    steps = (np.arange(1 << address_bits) + 0.5) / (1 << address_bits)
    value = address.lookup([round(one) for one in np.sin(math.pi / 2 * steps) * (1 << OUTPUT_FRACTION)])
    return _signed(build, sign, value)


def taylor(terms: int = 5) -> Pipeline:
    """sin(pi x / 2) by its Taylor series of odd powers, Horner's scheme: two stages a term."""
    build = Build("taylor", INPUT_BITS)
    folded, sign = _fold(build)
    value = _series(build, folded, terms)
    return _signed(build, sign, value, _WORK - OUTPUT_FRACTION)


def cordic(iterations: int = 14) -> Pipeline:
    """sin(pi x / 2) by rotations through arctan(2^-i): an addition or subtraction in each of three words a stage."""
    build = Build("cordic", INPUT_BITS)
    folded, sign = _fold(build)
    angle = (folded << (_WORK - INPUT_FRACTION)).wrap(18)
    gain = math.prod(math.sqrt(1 + 4.0**-i) for i in range(iterations))
    across: Wire | int = round((1 << _WORK) / gain)
    up: Wire | int = 0
    for i in range(iterations):
        build.stage(f"rotate {i}")
        turn = round(math.atan(2.0**-i) * 2 / math.pi * (1 << _WORK))
        if i == 0:  # constants: the first angle is never negative
            across, up, angle = _held(angle, across), _held(angle, across), (angle - turn).wrap(18)
            continue
        assert isinstance(across, Wire)
        assert isinstance(up, Wire)
        a, b = up >> i, across >> i
        across, up, angle = (
            angle.where_negative(across + a, across - a).wrap(18),
            angle.where_negative(up - b, up + b).wrap(18),
            angle.where_negative(angle + turn, angle - turn).wrap(18),
        )
    assert isinstance(up, Wire)
    return _signed(build, sign, up, _WORK - OUTPUT_FRACTION)


def _held(any_wire: Wire, value: Wire | int) -> Wire:
    """A constant as a value of this stage."""
    return any_wire.where_negative(value, value).wrap(18)


def exp(degree: int = 3) -> Pipeline:
    """exp(-x^2): a power of two whose whole part shifts and whose fraction goes through a polynomial."""
    build = Build("exp", INPUT_BITS)
    build.stage("square")
    square = (build.x * build.x) >> (2 * INPUT_FRACTION - 14)
    build.stage("log2 e")
    power = square * round(math.log2(math.e) * (1 << 14))
    build.stage("split")
    whole, fraction = power >> 28, power.low(28) >> (28 - _WORK)
    nodes = (np.cos((np.arange(32) + 0.5) * math.pi / 32) + 1) / 2
    coefficients = [round(float(one) * (1 << _WORK)) for one in np.polyfit(nodes, 2.0**-nodes, degree)]
    value: Wire | int = coefficients[0]
    for coefficient in coefficients[1:]:
        build.stage("multiply")
        product = fraction * value if isinstance(value, int) else value * fraction
        build.stage("add")
        value = ((product >> _WORK) + coefficient).wrap(19)
    assert isinstance(value, Wire)
    build.stage("shift")
    shifted = value >> whole
    build.stage("round")
    return build.done(shifted.rounded(_WORK - OUTPUT_FRACTION).wrap(16))


def sinc(terms: int = 5) -> Pipeline:
    """sin(pi x / 2) / (pi x / 2): the Taylor sine and a restoring divider, one bit of the quotient a stage."""
    build = Build("sinc", INPUT_BITS)
    folded, _ = _fold(build)
    magnitude = build.x.magnitude()
    sign = (2 * _ONE - magnitude).sign()  # the ratio is even, and negative from +-2 on
    value = _series(build, folded, terms, _DIVIDE)
    build.stage("pi / 2")
    below = (magnitude * round(math.pi / 2 * (1 << 15))) >> (15 + INPUT_FRACTION - _DIVIDE)
    top = (value - below).where_negative(value, below)  # rounding must not lift the ratio above 1
    quotient: Wire | int = 0
    for bit in range(OUTPUT_FRACTION + 1):
        build.stage(f"divide {bit}")
        twice = (top << 1).wrap(_DIVIDE + 5)
        rest = twice - below
        doubled = 0 if isinstance(quotient, int) else quotient << 1
        one = 1 if isinstance(doubled, int) else doubled + 1
        quotient = rest.where_negative(doubled, one).wrap(17)
        top = rest.where_negative(twice, rest).wrap(_DIVIDE + 5)
    assert isinstance(quotient, Wire)
    return _signed(build, sign, quotient, 1)


def _signed(build: Build, sign: Wire, value: Wire, extra: int = 0) -> Pipeline:
    """The last stage: `extra` bits of fraction rounded off, then the sign."""
    build.stage("round, sign" if extra else "sign")
    y = value.rounded(extra) if extra else value
    return build.done(sign.where_negative(0 - y, y).wrap(16))


def _fold(build: Build) -> tuple[Wire, Wire]:
    """|sin| has period 2 and is even: the argument in [0, 1], and the sign of the sine."""
    build.stage("wrap, magnitude")
    wrapped = build.x.wrap(INPUT_FRACTION + 2)
    magnitude = wrapped.magnitude()
    build.stage("fold")
    return (magnitude - _ONE).where_negative(magnitude, 2 * _ONE - magnitude).wrap(INPUT_FRACTION + 2), wrapped.sign()


def _series(build: Build, folded: Wire, terms: int, fraction: int = _WORK) -> Wire:
    """sin(pi z / 2) for z in [0, 1], with `fraction` bits of fraction."""
    build.stage("square")
    square = (folded * folded) >> (2 * INPUT_FRACTION - _WORK)
    powers = range(2 * terms - 1, 0, -2)
    series = [(-1) ** (n // 2) * (math.pi / 2) ** n / math.factorial(n) for n in powers]
    first, *rest = [round(one * (1 << _WORK)) for one in series]
    value: Wire | int = first
    for coefficient in rest:
        build.stage("multiply")
        product = square * value
        build.stage("add")
        value = ((product >> _WORK) + coefficient).wrap(19)
    build.stage("multiply")
    return ((folded * value) >> (INPUT_FRACTION + _WORK - fraction)).wrap(fraction + 3)


def _sine(x: np.ndarray) -> np.ndarray:
    return np.sin(np.pi / 2 * x)


def _quad(x: np.ndarray) -> np.ndarray:
    wrapped = np.mod(x + 2, 4) - 2
    return wrapped * (2 - np.abs(wrapped))


# each pipeline, the function it stands for, and the bound of its error in units of the last place (2^-14)
ACTIVATIONS: dict[str, tuple[Callable[[], Pipeline], Callable[[np.ndarray], np.ndarray], float]] = {
    "quad": (quad, _quad, 0.5),
    "lut": (lut, _sine, 13.2),  # half a step of the table, pi / 2 / 2048, and rounding
    "taylor": (taylor, _sine, 1.5),
    "cordic": (cordic, _sine, 5.0),
    "exp": (exp, lambda x: np.exp(-(x**2)), 3.0),
    "sinc": (sinc, lambda x: np.sinc(x / 2), 6.0),
}
