"""Five published compute-in-memory macros: published, ours, error. What was fitted to a macro and what was not.

Between operating points the model knows three laws, none fitted to a macro: energy follows the square of the supply;
delay follows V / (V - 0.3)^1.3 (Sakurai and Newton, textbook threshold and exponent); bit-serial work is proportional
to bits, and a neuron that counts takes 2^(bits - 1) steps.
"""

from importlib.resources import files
from typing import Any

import yaml

from cimphony.chip import Chip, CrossbarUnit, load_chip
from cimphony.cost import CostReport, estimate
from cimphony.mapping import cells_per_weight
from cimphony.papers.claims import Claim, claims_record
from cimphony.record import Record
from cimphony.workload import Operation, Workload

THRESHOLD, EXPONENT = 0.3, 1.3  # V; alpha-power law
QUANTITIES = {"tops": "TOPS", "tops_per_watt": "TOPS/W", "tops_per_mm2": "TOPS/mm2"}


def validate() -> list[dict[str, Any]]:
    """One row per macro, operating point and quantity.

    Columns: macro, point, quantity, published, ours, error (ours / published - 1), role (fitted, held out,
    not modelled), fitted, missing.
    """
    macros = yaml.safe_load((files("cimphony.papers") / "macros.yaml").read_text(encoding="utf-8"))
    return [row for macro in macros for point in macro["points"] for row in _rows(macro, point)]


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Held-out points by quantity: how many, mean and largest absolute error, mean with what is not modelled."""
    found: dict[str, dict[str, float]] = {}
    for quantity in QUANTITIES:
        errors, beyond = (
            [abs(row["error"]) for row in rows if (row["quantity"], row["role"]) == (quantity, role)]
            for role in ("held out", "not modelled")
        )
        found[quantity] = {
            "points": len(errors),
            "mean": sum(errors) / len(errors),
            "largest": max(errors),
            "mean_with_not_modelled": sum(errors + beyond) / len(errors + beyond),
        }
    return found


def record() -> Record:
    """All macros as claims: fitted points are by construction, held-out ones within 15 % or not.

    Results as of any paper, and `rows` as `validate` gives them, and `held_out`, their summary.
    """
    rows = validate()
    found = claims_record(
        "Published macros", [_claim(row) for row in rows],
        assumptions=[
            "energy follows the square of the supply voltage",
            f"delay follows V / (V - {THRESHOLD})^{EXPONENT}, textbook values for every node",
            "a counting neuron takes 2^(bits - 1) steps; bit-serial work is proportional to bits",
        ],
    )  # fmt: skip
    found.results.update(rows=rows, held_out=summary(rows))
    return found


def _claim(row: dict[str, Any]) -> Claim:
    statement = f"{row['macro'].removeprefix('macro-')}, {row['point']}: {row['quantity'].replace('_', ' ')}"
    status = "calibrated" if row["role"] == "fitted" else "derived"
    note = f"fitted: {row['fitted']}" if row["role"] == "fitted" else f"missing: {row['missing']}"
    key = f"{row['macro']} {row['point']} {row['quantity']}"
    published, unit, ours = row["published"], row["unit"], row["ours"]
    return Claim(key, row["macro"], statement, published, unit, status, lambda: ours, note, tolerance=0.15)


def at_voltage(chip: Chip, voltage: float) -> Chip:
    """The chip at another supply: every energy by the square of the ratio, the cycle by the delay law."""
    assert chip.voltage is not None
    energy = (voltage / chip.voltage) ** 2
    slower = (voltage / (voltage - THRESHOLD) ** EXPONENT) / (chip.voltage / (chip.voltage - THRESHOLD) ** EXPONENT)
    unit = _unit(chip)
    changes: dict[str, Any] = {"voltage": voltage, "units.analog.cycle": unit.cycle * slower}
    for name, part in unit.components.items():
        scaled = {action: cost * energy for action, cost in part.energy.items()}
        changes[f"units.analog.components.{name}.energy"] = scaled
    adc = unit.converter
    if adc is not None and adc.energy_law is not None and adc.energy_law.kind == "table":
        table = {bits: cost * energy for bits, cost in adc.energy_law.energy.items()}
        changes["units.analog.adc.energy_law.energy"] = table
    return chip.replace(changes)


def measured(chip: Chip) -> CostReport:
    """A full array at work: 1000 inputs through every row and column."""
    unit = _unit(chip)
    arrays = [
        Operation(layer=f"core{index}.w", kind="static_matmul", m=1000, k=unit.rows, n=_outputs(unit))
        for index in range(unit.count.get("array", 1))
    ]
    return estimate(Workload(model="a full array", operations=arrays), chip, chips=1)


def _outputs(unit: CrossbarUnit) -> int:
    """Of one array."""
    return unit.columns // cells_per_weight(unit, next(iter(unit.cell.bits)))


def _rows(macro: dict[str, Any], point: dict[str, Any]) -> list[dict[str, Any]]:
    chip, products = _at(load_chip(macro["chip"]), point, macro.get("constants", {}))
    report = measured(chip)
    unit = _unit(chip)
    sums = unit.rows * _outputs(unit) * unit.count.get("array", 1)
    operations = 2000.0 * sums * products * macro.get("bit_products", 1)
    ours = {"tops": operations / report.interval * 1e-12, "tops_per_watt": operations / report.energy * 1e-12}
    if report.area:
        ours["tops_per_mm2"] = ours["tops"] / (report.area * 1e6)
    published = {name: point[name] for name in QUANTITIES if name in point}
    for name, share in point.get("shares", {}).items():
        published[f"share of {name}"] = share
        ours[f"share of {name}"] = 100 * _component(report, name) / report.energy
    shared = {"macro": macro["chip"], "point": point["label"], "fitted": macro["fitted"], "missing": macro["missing"]}
    rows: list[dict[str, Any]] = []
    for quantity, value in published.items():
        role = "not modelled" if quantity in point.get("unmodelled", ()) else point["role"]
        numbers = {"published": value, "ours": ours[quantity], "error": ours[quantity] / value - 1}
        rows.append(shared | {"quantity": quantity, "unit": QUANTITIES.get(quantity, "%"), "role": role} | numbers)
    return rows


def _component(report: CostReport, name: str) -> float:
    return sum(row["energy"] for row in report.by("component") if row["component"] == f"analog.{name}")


def _at(chip: Chip, point: dict[str, Any], fit: dict[str, float]) -> tuple[Chip, float]:
    """The chip at an operating point, and how many published multiply-adds one of its own is."""
    if "activity" in point:
        macro = _unit(chip).components["macro"].energy["mac"] + fit["output"] * point["activity"]
        chip = chip.replace({"units.analog.components.macro.energy.mac": macro})
    if "voltage" in point:
        chip = at_voltage(chip, point["voltage"])
    if "output_bits" in point:
        return _at_widths(chip, point["input_bits"], point["output_bits"], fit), 1.0
    if "input_bits" in point:  # bit-serial: a description holds 2 bits and more, of which one is asked for
        bits = max(2, point["input_bits"])
        return chip.replace({"units.analog.input.bits": bits}), bits / point["input_bits"]
    return chip, 1.0


def _at_widths(chip: Chip, input_bits: int, output_bits: int, fit: dict[str, float]) -> Chip:
    """NeuRRAM: one pulse an input bit beside the sign, 2^(bits - 1) steps of the neuron."""
    pulses, steps = max(1, input_bits - 1), 2.0 ** (output_bits - 1)
    law = {"kind": "doubling", "bits": output_bits, "energy": fit["step"] * steps * _unit(chip).rows}
    return chip.replace(
        {
            "units.analog.input.bits": max(2, input_bits),
            "units.analog.adc.bits": output_bits,
            "units.analog.adc.energy_law": law,
            "units.analog.cycle": fit["fixed_time"] + fit["step_time"] * steps,
            "units.analog.components.row_driver.energy.mac": fit["fixed"] + fit["pulse"] * pulses,
        }
    )


def _unit(chip: Chip) -> CrossbarUnit:
    return chip.unit("analog", CrossbarUnit)
