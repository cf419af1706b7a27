"""Every field of a chip changes something: a model's outputs, its cost, or what writing and wearing cells costs."""

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import cimphony as cim
from cimphony.chip import Chip, Part, load_chip
from cimphony.cost import estimate, lifetime
from cimphony.errors import CimphonyError

# for the reader; straight lines that only training follows (tests/gain_cell); names of units
_SILENT = {"Chip.name", "Chip.notes", "Adc.kind", "CubicMultiplier.slope", "TableMultiplier.slope"}
_SILENT |= {"Chip.policy", "AcamUnit.arrays"}
_STUCK = {"off": 0.02, "on": 0.01}
_SMALL = {"units.analog.rows": 24, "units.analog.columns": 40, "units.analog.count": {"array": 4, "module": 2, "pu": 2}}
_NOISE = {"gain": 0.05, "offset": 1e-8, "comparator": 1e-7, "write": 0.01, "read": 1e-7, "jitter": 1e-10}
_LEVELS = [{"target": at, "mean": 0.9 * at, "sd": 1e-7, "read": 1e-7} for at in (1e-6, 5e-6, 2e-5)]
_PRICED = {"probe": {"energy": {"read": 1e-12}, "area": 1e-12, "leakage": 1e-6, "node": 45e-9, "voltage": 1.0}}
_CELLS = {"window": 9, "array": 8, "noise": _NOISE, "token_time": 1e-7, "adder_time": 1e-8}


def crossbar(device: dict[str, Any], **changes: Any) -> Chip:
    """Small arrays of two-bit cells of a device, in whole pairs behind calibrated converters."""
    cell = {"bits": 2, "device": {"mlc": {**device, "stuck": _STUCK}}, "drift_compensation": "global"}
    cell["write"] = load_chip("hyflexpim").units["analog"].cell.write.model_dump()  # type: ignore[union-attr]
    adc = {
        "bits": {"mlc": 7},
        "range": "calibrated",
        "quantile": 0.98,
        "columns_per_adc": 8,
        "energy_law": {"kind": "survey"},
    }
    unit = {
        "cell": cell,
        "encoding": {"weights": "differential"},
        "adc": adc,
        "components": _PRICED,
        "fidelity": "effective",
    }
    own = {f"units.analog.{name}": value for name, value in {**unit, **changes}.items()}
    return load_chip("hyflexpim").replace({**_SMALL, **own, "redundancy": {"*k_proj": 2}})


def gain_cells(multiplier: dict[str, Any] | None = None, **changes: Any) -> Chip:
    own = {f"units.attention.{name}": value for name, value in {**_CELLS, **changes}.items()}
    own |= {"units.attention.cell.retention": 1e-5}
    own |= {"units.attention.cell.multiplier": multiplier} if multiplier else {}
    return load_chip("gain-cell-cmos").replace(own)


def chips() -> Iterator[Chip]:
    """Together they hold every part and make every field count; quick ones first."""
    yield load_chip("gpu-h100")
    yield gain_cells()
    yield gain_cells({"kind": "linear", "slope": 2e-5}, token_period=1e-6)
    currents = {"voltage": [0.0, 0.3, 0.45, 0.6, 0.9], "current": [-8e-6, -2e-6, 0.0, 3e-6, 7e-6]}
    yield gain_cells({"kind": "table", **currents})
    linear, table = {"kind": "linear", "energy_per_bit": 1e-13}, {"kind": "table", "energy": {7: 1e-12}}
    yield crossbar({"kind": "rram", "g_min": 1e-6}, **{"adc.energy_law": linear})
    yield crossbar({"kind": "log_linear", "g_min": 1e-6}, **{"adc.energy_law": table})
    yield crossbar({"kind": "ideal"}, encoding={"weights": "offset", "flip": True}, fidelity="exact")
    drift = {"exponent": 0.05, "spread": 0.01, "since": 10.0}
    yield crossbar({"kind": "measured", "levels": _LEVELS, "drift": drift})
    digits = {"coding": "multi_bit", "slice_bits": 3, "range": "static", "quantile": 0.98}
    gaussian = {"kind": "gaussian", "multiplicative": 0.05, "additive": 0.03, "read": 0.02}
    yield crossbar(gaussian, input=digits)
    yield load_chip("hyflexpim").replace(
        {**_SMALL, "units.digital.attention": {}, "units.sfu.bits": 16, "units.analog.adc.node": 45e-9}
    )
    device, law = {"kind": "log_linear", "scale": 2.0, "stuck": _STUCK}, {"highest": 0.9, "lowest": 0.7}
    acam = {"thresholds": {"device": device, "law": law}, "spare_rows": 2, "partial_sums": "digital"}
    own = {f"units.analog.adc.{name}": value for name, value in acam.items()} | {"units.analog.rows": 20}
    own |= {"units.functions.bandwidth": 1e6, "units.functions.floor_is": "added", "units.functions.floor": 1e-3}
    yield load_chip("nl-dpe").replace(own | {"units.analog.adc.cell.voltage": 0.8})
    residual, wires = {"weights": "differential_residual", "residual_gain": 16}, {"row": 20.0, "column": 20.0}
    yield crossbar({"kind": "pcm"}, encoding=residual, wires=wires)
    yield crossbar(gaussian, wires={**wires, "g_min": 1e-6, "g_max": 5e-5})


def tiny() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=60, num_key_value_heads=1, **sizes)).eval()  # type: ignore[arg-type]
    for parameter in model.parameters():
        parameter.data.mul_(3)
    return model


def outputs(model: LlamaForCausalLM, chip: Chip) -> bytes:
    """Of two reads, one of them of an aged chip; empty where the chip leaves the model digital."""
    texts = torch.arange(48).view(3, 16) * 7 % 60
    try:
        cim.convert_(model, chip, exclude=["lm_head"])
    except CimphonyError:
        return b""
    try:
        with torch.no_grad():
            with cim.calibrate(model):
                model(texts)
                model(texts[:, :5])
            found = model_logits(cim.program_(model, seed=3), texts)
            return found + model_logits(cim.age_(model, seconds=3e5), texts)
    except CimphonyError as error:  # unsigned inputs are refused where some are negative
        return str(error).encode()
    finally:
        cim.restore_(model)


def model_logits(model: Any, texts: torch.Tensor) -> bytes:
    return model(texts[:2, 3:]).logits.numpy().tobytes()


def prices(works: list[cim.Workload], chip: Chip) -> str:
    """Cost without names and assumptions, and what writing and wearing costs."""
    found: list[Any] = []
    for work in works:
        report = estimate(work, chip)
        found.append([report.to_dict()["totals"], report.by("component"), report.placement.chips])
        for count in (lifetime.programming, lifetime.endurance):
            try:
                found.append(repr(count(work, chip)))
            except CimphonyError:
                found.append(None)
    try:
        found.append(repr(lifetime.swapping(works[0], chip, chips=1)))
    except (CimphonyError, KeyError):
        found.append(None)
    return json.dumps(found)


def kinds_of(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return kinds_of(get_args(annotation)[0])
    if get_origin(annotation) is Literal or not get_args(annotation) or get_origin(annotation) in (dict, list, tuple):
        return [annotation]
    return [kind for one in get_args(annotation) for kind in kinds_of(one)]


def others(annotation: Any, value: Any) -> Iterator[Any]:
    """Values like this one; what is not allowed is left out by the chip."""
    for kind in kinds_of(annotation):
        if get_origin(kind) is Literal:
            yield from (one for one in get_args(kind) if one != value)
        elif kind is type(None):
            yield None
        elif kind is bool:
            yield not value
        elif kind is int:
            yield from (value + 1, value - 1, value * 2, value * 16, value // 2) if value else (1, 4, 8)
        elif kind is str:
            yield from ("array", "chip")
        elif kind is float:
            yield from (value * 1.3, value * 0.5, value - 0.1, 0.9) if value else (0.5, 1e-9, 1e-6, 32e-9, 1.0)
        elif isinstance(value, list | tuple):
            yield [[x * 1.1 for x in one] if isinstance(one, list) else one * 1.1 for one in value]


def fields_of(part: Part, path: str = "") -> Iterator[tuple[str, str, Any, Any, Any]]:
    """(Class.field, its path, annotation, value, what stands there for a new value) of a part and the parts in it."""
    for name, known in type(part).model_fields.items():
        value, place, label = getattr(part, name), f"{path}{name}", f"{type(part).__name__}.{name}"
        if name == "source":
            continue
        if isinstance(value, Part):
            yield from fields_of(value, f"{place}.")
            yield label, place, known.annotation, None, lambda new: new
        elif isinstance(value, dict):
            for key, one in value.items():
                if isinstance(one, Part):
                    yield from fields_of(one, f"{place}.{key}.")
                else:
                    yield label, f"{place}.{key}", type(one), one, lambda new: new
        elif isinstance(value, tuple) and isinstance(value[1], Part):
            rows = [one.model_dump() for one in value]
            for key, known in type(value[1]).model_fields.items():
                label = f"{type(value[1]).__name__}.{key}"
                yield (
                    label,
                    place,
                    known.annotation,
                    rows[1][key],
                    lambda new, key=key, rows=rows: [rows[0], {**rows[1], key: new}, *rows[2:]],
                )
        else:
            yield label, place, known.annotation, value, lambda new: new


def declared() -> set[str]:
    """Every field that takes a value of its own; a part that must be there counts by its fields."""
    parts, found = [Part], set[str]()
    while parts:
        part = parts.pop()
        parts += [one for one in part.__subclasses__() if one.__module__.startswith("cimphony.chip")]
        for name, known in part.model_fields.items():
            kinds = kinds_of(known.annotation)
            single = get_origin(kinds[0]) is Literal and len(get_args(kinds[0])) == 1
            nested = all(isinstance(one, type) and issubclass(one, Part) for one in kinds)
            if name != "source" and not single and not nested and not holds_parts(kinds[0]):
                found.add(f"{part.__name__}.{name}")
    return found


def holds_parts(kind: Any) -> bool:
    inner = [one for one in get_args(kind) if one is not Ellipsis] if get_origin(kind) in (dict, tuple) else []
    return bool(inner) and any(isinstance(one, type) and issubclass(one, Part) for one in kinds_of(inner[-1]))


def test_every_field_changes_something() -> None:
    model, alive = tiny(), set[str]()
    work = cim.trace(model, prompt=20, new_tokens=3)
    works = [work, work.model_copy(update={"parameters": 10**11})]
    for chip in chips():
        logits, cost = outputs(model, chip), prices(works, chip)
        for label, place, annotation, value, whole in fields_of(chip):
            if label in alive | _SILENT:
                continue
            for new in others(annotation, value):
                try:
                    changed = chip.replace({place: whole(new)})
                    if prices(works, changed) != cost or outputs(model, changed) != logits:
                        alive.add(label)
                        break
                except CimphonyError:
                    continue
    dead = declared() - alive
    assert dead == _SILENT, sorted(dead ^ _SILENT)
