"""What programmed layers keep, in bytes a weight, stored and regenerated; the same bits either way."""

from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import torch
from torch import nn

import cimphony as cim
from cimphony import native
from cimphony.errors import DataError


def one_bit(**device: float) -> dict[str, Any]:
    """Cells of one bit."""
    return {"units.analog.cell": {"bits": 1, "device": {"kind": "gaussian", **device}}, "units.analog.adc.bits": 7}


def tensors(value: Any) -> list[torch.Tensor]:
    """Every tensor that an object holds on to."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [one for part in value.values() for one in tensors(part)]
    if isinstance(value, list | tuple):
        return [one for part in value for one in tensors(part)]
    own = [getattr(value, one.name) for one in fields(value)] if is_dataclass(value) else []
    return tensors([*own, *getattr(value, "__dict__", {}).values()])


def bytes_kept(model: nn.Module) -> float:
    """Bytes a weight, beside the digital weight itself."""
    layers = [layer for layer in model if isinstance(layer, cim.nn.AnalogLayer)]
    kept = [one for layer in layers for tiles in layer.tiles for one in tensors(tiles.programmed)]
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in kept}
    return sum(storages.values()) / sum(layer.weight.numel() for layer in layers)


def model_on(memory: str = "stored", **replaced: Any) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(576, 320), nn.ReLU(), nn.Linear(320, 512))
    chip = cim.load_chip("hyflexpim").replace(replaced)
    return cim.program_(cim.convert_(model, chip), seed=3, memory=memory)


KINDS = {  # and the bytes a weight that are kept, of which the scales of columns take 0.04
    "tables": (one_bit(multiplicative=0.05), 9.04),
    "split": (one_bit(multiplicative=0.02), 10),
    "collapsed": (one_bit(multiplicative=0.01), 10.04),  # a byte of the product comes on top
    "noise-free": (one_bit() | {"units.analog.adc": {"bits": 5, "range": "full_scale"}}, 1.04),
    "noisy reads": (one_bit(multiplicative=0.05, read=0.02), 9.04),
    "no converter": (one_bit(multiplicative=0.05) | {"units.analog.adc": None}, 13.04),
    "noise of its own in every cell": ({"units.analog.cell": {"bits": 2, "device": {"kind": "pcm"}}}, 13.6),
    "two modes": ({}, 5.2),
}


@pytest.mark.skipif(native.library() is None, reason="no compiled kernels")
@pytest.mark.parametrize("kind", KINDS)  # split: some columns collapse, the others are read from tables
def test_bytes_a_weight_that_are_kept(kind: str) -> None:
    replaced, most = KINDS[kind]
    model = model_on(**replaced)
    with torch.no_grad():
        model(torch.randn(3, 576))
    assert bytes_kept(model) <= most


@pytest.mark.parametrize("device", ["gaussian", "pcm"])
def test_regenerated_cells_take_two_bytes_and_give_the_same_bits(device: str) -> None:
    chip = {} if device == "gaussian" else {"units.analog.cell.device": {"kind": "pcm"}}
    stored, regenerated = model_on(**chip), model_on("regenerated", **chip)
    inputs = torch.randn(4, 576)
    for model in (stored, regenerated):
        cim.age_(model, seconds=3600.0)
    with torch.no_grad():
        assert torch.equal(stored(inputs), regenerated(inputs))
        assert torch.equal(stored(inputs[:1]), regenerated(inputs[:1]))
    assert bytes_kept(regenerated) <= 2
    for model in (stored, regenerated):
        model(inputs).square().sum().backward()
    assert torch.equal(stored[0].weight.grad, regenerated[0].weight.grad)
    assert bytes_kept(regenerated) <= 2


def test_the_mode_survives_training() -> None:
    model = model_on("regenerated").train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.randn(4, 576)).square().mean().backward()
    optimiser.step()
    model(torch.randn(4, 576))
    assert model[0].tiles[0].programmed.rewrites == 1
    assert bytes_kept(model) <= 2


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(DataError, match="memory = 'lost' is not allowed: it must be one of stored, regenerated"):
        model_on("lost")
