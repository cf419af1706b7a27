"""Switches: every non-ideality is switched alone, and with all of them off a chip is the digital product it encodes."""

from typing import get_args

import pytest
import torch
from torch import nn

import cimphony as cim
from cimphony.chip import NON_IDEALITIES, Chip, Device, load_chip
from cimphony.chip.switches import DEVICE
from cimphony.circuits import quantise_weights
from cimphony.errors import ChipError
from cimphony.nn import analog_layers
from tests.conftest import CONVERTERS, DEVICES, ENCODINGS, unit

DAY = 86_400.0
KINDS = get_args(get_args(Device)[0])
NO_ERROR = {"kind", "g_min", "g_max", "scale", "levels"}  # scale, levels: of errors with fields of their own
READS = [(one, adc) for one in ENCODINGS for adc in CONVERTERS if one != "signed-digits" or adc == "none"]
INPUTS = torch.randn(6, 70, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def chip(device: str = "pcm", encoding: str = "differential", converter: str = "none") -> Chip:
    described = unit(device, encoding, converter).model_dump()
    return load_chip("hyflexpim").replace({"units.analog": {**described, "cell": {**described["cell"], "bits": 2}}})


def layer(on: Chip, seed: int = 0, age: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(70, 9, dtype=torch.float64))
    cim.convert_(model, on)
    with cim.calibrate(model):
        model(INPUTS)
    return cim.age_(cim.program_(model, seed=seed), seconds=age)


def held(model: nn.Module) -> torch.Tensor:
    programmed = analog_layers(model)["0"].tiles[0].programmed
    assert programmed is not None
    return programmed.weights


@pytest.mark.parametrize(("encoding", "converter"), READS)
@pytest.mark.parametrize("device", DEVICES)
def test_all_off_is_the_product_with_the_quantised_weights(device: str, encoding: str, converter: str) -> None:
    on = chip(device, encoding, converter)
    model = layer(on.only(), age=DAY)
    linear = model[0]
    integers, scale = quantise_weights(linear.weight.detach().T, on.units["analog"].encoding)
    expected = INPUTS @ (integers * scale) + linear.bias
    torch.testing.assert_close(model(INPUTS), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
def test_each_moment_by_itself(device: str) -> None:
    quiet, exact = held(layer(chip(device).only())), chip(device)
    assert torch.equal(held(layer(exact.without("drift"), age=DAY)), held(layer(exact.without("drift"))))
    assert torch.equal(held(layer(exact.only("drift", "read", "converters"))), quiet)  # fresh
    silent = layer(exact.without("read"))
    assert torch.equal(silent(INPUTS), silent(INPUTS))
    stuck = held(layer(exact.only("stuck"), age=DAY))
    assert torch.equal(stuck, quiet) == (exact.units["analog"].cell.device["mlc"].stuck is None)


@pytest.mark.parametrize("device", ["pcm", "rram"])
def test_drift_alone_begins_where_the_cells_were_meant_to_be(device: str) -> None:
    drifting = chip(device).only("drift")
    assert torch.equal(held(layer(drifting)), held(layer(chip(device).only())))
    assert not torch.equal(held(layer(drifting, age=DAY)), held(layer(drifting)))


def test_programming_and_drift_add_up_to_the_published_spread() -> None:
    """RRAM draws one number for each cell, so the two parts sum to the whole error."""
    quiet, whole, early, late = (
        held(layer(chip("rram").only(*names), age=DAY))
        for names in ((), ("programming", "drift"), ("programming",), ("drift",))
    )
    apart = ((early - quiet) + (late - quiet) - (whole - quiet)).abs()
    assert apart.median() < 0.02 * (whole - quiet).abs().median()  # the rest: clamped cells, the grid


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_a_device_belongs_to_a_switch(kind: type) -> None:
    switched = {field for fields in DEVICE.values() for field in fields}
    assert set(kind.model_fields) <= switched | NO_ERROR


def test_gain_cells() -> None:
    noise = {"gain": 0.1, "offset": 1e-7, "comparator": 1e-6, "write": 0.03, "read": 1e-6, "jitter": 1e-9}
    noisy = load_chip("gain-cell-cmos").replace({"units.attention.noise": noise})
    off = noisy.only().units["attention"]
    assert set(off.noise.model_dump().values()) == {0.0}
    assert off.cell.retention is off.pulses.input_levels is off.pulses.output_levels is None
    assert off.cell.levels == noisy.units["attention"].cell.levels  # how a weight is kept
    for name, fields in {"read": {"read", "jitter"}, "programming": {"gain", "offset", "comparator", "write"}}.items():
        kept = noisy.only(name).units["attention"].noise.model_dump()
        assert {field for field, value in kept.items() if value} == fields
    assert noisy.only("drift").units["attention"].cell == noisy.units["attention"].cell
    assert noisy.only("converters").units["attention"].pulses == noisy.units["attention"].pulses
    assert load_chip("gain-cell-cmos").only().units["attention"].noise is None


def test_names_notes_and_errors() -> None:
    pcm = load_chip("pcm-256")
    assert pcm.without() == pcm.only(*NON_IDEALITIES) == pcm
    assert pcm.only("read").name == "pcm-256 (only read)"
    assert pcm.without("read", "stuck").name == "pcm-256 (without read + stuck)"
    assert pcm.only().name == "pcm-256 (only nothing)"
    assert pcm.without("read").notes[-1] == "switched off: read"
    assert "costs" in pcm.only("read").notes[-1]
    with pytest.raises(
        ChipError, match=r"'noise' is not known; choose from programming, read, drift, stuck, wires, conv"
    ):
        pcm.without("noise")
    assert load_chip("gpu-h100").without("read").units == load_chip("gpu-h100").units
