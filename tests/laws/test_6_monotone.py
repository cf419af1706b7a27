"""Law 6: on average more converter bits do not hurt and more noise does not help."""

import pytest
import torch
from torch import nn

import cimphony as cim


@torch.no_grad()
def error(changes: dict, seeds: int = 3) -> float:
    """Mean squared output error against the digital layer, relative, over chips."""
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(256, 48)
    layer.weight.data = torch.randn(48, 256, generator=generator)
    inputs = torch.randn(32, 256, generator=generator)
    digital = layer(inputs)
    model = nn.Sequential(layer)
    chip = cim.load_chip("hyflexpim").replace(
        {"units.analog.cell": {"bits": 2, "device": {"kind": "ideal"}}, **changes}
    )
    cim.convert_(model, chip)
    total = 0.0
    for seed in range(seeds):
        cim.program_(model, seed=seed)
        total += float(((model(inputs) - digital) ** 2).mean() / (digital**2).mean())
    return total / seeds


def test_more_converter_bits_do_not_hurt() -> None:
    errors = [error({"units.analog.adc": {"bits": bits, "range": "full_scale"}}, 1) for bits in (4, 5, 6, 7, 8)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 10 * errors[-1]


def test_more_input_bits_do_not_hurt() -> None:
    errors = [error({"units.analog.adc": None, "units.analog.input.bits": bits}, 1) for bits in (3, 5, 8)]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("fidelity", ["exact", "effective"])
@pytest.mark.parametrize("field", ["multiplicative", "additive", "read"])
def test_more_noise_does_not_help(field: str, fidelity: str) -> None:
    def at(sd: float) -> float:
        device = {"kind": "gaussian", field: sd}
        return error({"units.analog.cell.device": device, "units.analog.fidelity": fidelity})

    errors = [at(sd) for sd in (0.01, 0.05, 0.2)]
    assert errors == sorted(errors)


@torch.no_grad()
def test_ageing_does_not_help() -> None:
    chip = cim.load_chip("pcm-256")
    layer = nn.Linear(256, 32)
    inputs = torch.randn(64, 256)
    digital = layer(inputs)
    model = nn.Sequential(layer)
    cim.convert_(model, chip)
    with cim.calibrate(model):
        model(inputs)
    cim.program_(model, seed=0)
    errors = []
    for seconds in (0.0, 3600.0, 86_400.0, 2.6e6):
        cim.age_(model, seconds=seconds)
        errors.append(float(((model(inputs) - digital) ** 2).mean()))
    assert errors == sorted(errors)


def test_exact_and_effective_agree_where_the_converter_is_ideal() -> None:
    """The only difference between the fidelities is conversion."""
    layer = nn.Linear(200, 16).double()
    inputs = torch.randn(8, 200, dtype=torch.float64)
    outputs = []
    for fidelity in ("exact", "effective"):
        model = nn.Sequential(layer)
        chip = cim.load_chip("hyflexpim").replace({"units.analog.adc": None, "units.analog.fidelity": fidelity})
        cim.convert_(model, chip)
        cim.program_(model, seed=0)
        outputs.append(model(inputs))
        cim.restore_(model)
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-10, atol=1e-10)
