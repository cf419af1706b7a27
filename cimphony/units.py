"""SI numbers and how people read them. Everything inside is SI: J, s, W, m2, S, m."""

import re

from cimphony.errors import DataError

_PREFIXES = {-18: "a", -15: "f", -12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P"}
_SECONDS = {"": 1.0, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0, "y": 31_557_600.0}


def format_quantity(value: float, unit: str, digits: int = 3) -> str:
    """`format_quantity(7.8e-13, "J") == "780 fJ"`; areas are given in mm2 or µm2."""
    if unit == "m2":
        scale, name = (1e6, "mm²") if abs(value) >= 1e-8 else (1e12, "µm²")
        return f"{value * scale:.{digits}g} {name}"
    if value == 0:
        return f"0 {unit}"
    least = 0 if unit.startswith("/") else -18  # 0.3 /s, not 300 m/s, which is a speed
    fitting = [power for power in _PREFIXES if power >= least and abs(value) >= 0.9995 * 10.0**power]
    exponent = max(fitting, default=least)
    scaled = value / 10.0**exponent
    decimals = max(0, digits - len(str(int(abs(scaled)))))
    shown = f"{scaled:.{decimals}f}" if abs(scaled) >= 0.9995 else f"{scaled:.{digits}g}"
    return f"{shown} {_PREFIXES[exponent]}{unit}".rstrip()


def format_count(value: float) -> str:
    """`format_count(1_048_576) == "1.05 M"`."""
    return format_quantity(value, "").strip() if abs(value) >= 1000 else f"{value:.4g}"


def parse_seconds(text: str | float) -> float:
    """Seconds from `"90"`, `"20s"`, `"5min"`, `"2h"`, `"1d"`, `"1w"` or `"1y"`."""
    if isinstance(text, (int, float)):
        text = str(text)
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([a-z]*)\s*", text)
    if match is None or match[2] not in _SECONDS:
        raise DataError(f"age {text!r} is not a time. Write a number with s, min, h, d, w or y, for example 1d.")
    return float(match[1]) * _SECONDS[match[2]]
