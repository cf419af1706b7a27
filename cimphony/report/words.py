"""Numbers and times as people read them in tables and reports."""

import math

from cimphony.units import format_quantity

_AGES = ((31_557_600.0, "year"), (604_800.0, "week"), (86_400.0, "day"), (3600.0, "hour"), (60.0, "minute"))
MISSING = "–"


def age_words(seconds: float) -> str:
    """`age_words(86_400) == "1 day"`; a chip of no age is fresh."""
    if seconds == 0:
        return "fresh"
    for size, name in _AGES:
        if seconds >= size:
            count = seconds / size
            return f"{count:.3g} {name}{'' if count == 1 else 's'}"
    return f"{seconds:.3g} s"


def number(value: float | None) -> str:
    """Four significant digits; a dash where there is no number."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value == int(value) and abs(value) < 1e7:
        return f"{value:.0f}"
    return f"{value:.4g}"


def spread(mean: float | None, sd: float | None) -> str:
    """`spread(5.7012, 0.0123) == "5.701 ± 0.012"`: the spread decides how many decimals are worth reading."""
    if mean is None or not sd or math.isnan(sd):
        return number(mean)
    decimals = min(6, max(0, 1 - math.floor(math.log10(sd))))
    return f"{mean:.{decimals}f} ± {sd:.{decimals}f}"


def against(value: float | None, digital: float | None, higher_is_better: bool) -> str:
    """The distance to the digital model: a difference where higher is better, a percentage where lower is."""
    if value is None or digital is None or not digital or math.isnan(value):
        return MISSING
    if higher_is_better:
        return f"{value - digital:+.3f}".replace("-", "−")
    return f"{100 * (value / digital - 1):+.1f}\N{NO-BREAK SPACE}%".replace("-", "−")


def quantity(value: float | None, unit: str) -> str:
    """A quantity with an SI prefix; a dash where there is none."""
    if value is None or math.isnan(value):
        return MISSING
    if unit == "m2" and value >= 1e-3:
        return f"{float(f'{1e6 * value:.3g}'):,.0f} mm²"
    return format_quantity(value, unit)


def factor(value: float | None, reference: float | None) -> str:
    """How many times the reference: `factor(20, 10) == "2×"`, `factor(1, 40) == "1/40"`."""
    if not value or not reference:
        return MISSING
    ratio = value / reference
    if ratio < 0.0995:
        return f"1/{_short(1 / ratio)}"
    return f"{_short(ratio)}×"


def _short(ratio: float) -> str:
    return f"{ratio:.2g}" if ratio < 99.5 else f"{float(f'{ratio:.3g}'):,.0f}"


def share(part: float, total: float) -> str:
    """A percentage of a total."""
    return f"{100 * part / total:.1f}\N{NO-BREAK SPACE}%" if total else MISSING
