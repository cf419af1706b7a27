"""Columns read by ACAMs: what is fused, what is quantised, blocks of rows, gradients, saving."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cimphony as cim
from cimphony.chip import Chip
from cimphony.errors import StateError
from cimphony.nn import analog_layers, summary_rows

IDEAL = {
    "units.analog.fidelity": "effective",
    "units.analog.adc.thresholds": None,
    "units.analog.cell.device": {"kind": "ideal"},
    "units.analog.input": {"bits": 12},
}


def chip(**changes: Any) -> Chip:
    return cim.load_chip("nl-dpe").replace({"units.analog.fidelity": "effective"} | changes)


def on_chip(model: nn.Module, inputs: Tensor, the_chip: Chip, seed: int = 0) -> nn.Module:
    cim.convert_(model.eval(), the_chip)
    with cim.calibrate(model), torch.no_grad():
        model(inputs)
    return cim.program_(model, seed=seed)


class Backwards(nn.Module):
    """Registered in another order than it runs; one output is used twice, one activation serves two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.tanh, self.relu, self.gelu = nn.Tanh(), nn.ReLU(inplace=True), nn.GELU()
        self.last, self.twice, self.middle, self.first, self.also = (nn.Linear(12, 12) for _ in range(5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.first(x))
        x = self.gelu(self.middle(x)) + self.gelu(self.also(x))
        y = self.twice(x)
        return self.last(self.tanh(y) + y)


def follows(model: nn.Module) -> dict[str, str | None]:
    return {name: layer.readout and layer.readout.follows for name, layer in analog_layers(model).items()}


def test_fused_by_execution_and_only_where_nothing_else_reads() -> None:
    inputs = torch.randn(64, 12)
    model = on_chip(Backwards(), inputs, chip())
    nothing = dict.fromkeys(("last", "twice", "middle", "also"))
    assert follows(model) == {"first": "relu", **nothing}
    rows = {row["layer"]: row for row in summary_rows(model)}
    assert "first" in rows["relu"]["why"]
    assert "a pass of its own" in rows["gelu"]["why"]
    assert rows["first"]["acam"]["function"] == "ReLU"
    assert "noise x 1" in str(cim.summary(model))
    cim.restore_(model)
    assert type(model.relu) is nn.ReLU
    assert not any("readout" in vars(module) for module in model.modules())


def test_numbers_and_cost_agree_who_computes_an_activation() -> None:
    policy = {"static_matmul": "analog"}
    for unit, fused in ((None, True), ("vector", False), ("functions", True)):
        the_chip = chip(policy=policy | ({"activation": unit} if unit else {}))
        model = nn.Sequential(nn.Sequential(OrderedDict(w=nn.Linear(12, 8), act=nn.GELU())))  # one block
        report = cim.estimate(cim.trace(model, inputs=(4, 12)), the_chip)
        assert ("1 activations are what a product's ACAMs convert to" in " ".join(report.assumptions)) == fused
        assert any(row["operation"] == "activation" for row in report.by("operation")) != fused
        assert (follows(on_chip(model, torch.randn(64, 12), the_chip))["0.w"] == "0.act") == fused


def test_every_conversion_is_quantised_and_close() -> None:
    inputs = torch.randn(256, 12)
    digital = nn.Sequential(nn.Linear(12, 40), nn.GELU(), nn.Linear(40, 8))
    with torch.no_grad():
        wanted = digital(inputs)
    model = on_chip(digital, inputs, chip(**IDEAL))
    with torch.no_grad():
        found = model(inputs)
    readout = model[2].readout
    codes = readout.table.quantiser
    assert torch.equal(codes.values(codes.codes(found.double())).float(), found)
    assert float((found - wanted).abs().max()) < 3 * codes.step
    assert len(found.unique()) <= 256


@pytest.mark.parametrize("exact", [False, True])
def test_noise_is_one_draw_a_chip(exact: bool) -> None:
    inputs = torch.randn(32, 12)
    kind = chip(**{"units.analog.fidelity": "exact" if exact else "effective"})
    model = on_chip(nn.Sequential(nn.Linear(12, 16), nn.Tanh()), inputs, kind)
    with torch.no_grad():
        one, again = model(inputs), cim.program_(model, seed=0)(inputs)
        other = cim.program_(model, seed=1)(inputs)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_columns_with_errors_of_their_own() -> None:
    """Layers and blocks of rows; two equal columns get equal codes only where errors are drawn for the layer."""
    inputs, errors = torch.randn(300, 24), {}
    for drawn in ("layer", "column"):
        for way in ("analog", "digital"):
            layer = nn.Linear(24, 16)
            with torch.no_grad():
                layer.weight[1], layer.bias[1] = layer.weight[0], layer.bias[0]
            quiet = {"units.analog.cell.device": {"kind": "ideal"}, "units.analog.rows": 16}
            how = {"units.analog.adc.partial_sums": way, "units.analog.adc.thresholds.drawn": drawn}
            model = on_chip(nn.Sequential(layer), inputs, chip(**quiet, **how))
            with torch.no_grad():
                found = model(inputs)
            errors[drawn, way] = float((found[:, 0] - found[:, 1]).abs().max())
    assert errors["layer", "analog"] == errors["layer", "digital"] == 0
    assert min(errors["column", "analog"], errors["column", "digital"]) > 0


def test_blocks_of_rows_have_codes_of_their_own() -> None:
    inputs, layer = torch.randn(200, 100), nn.Linear(100, 16)
    with torch.no_grad():
        wanted = layer(inputs)
    errors = {}
    for way in ("analog", "digital"):
        kind = chip(**IDEAL, **{"units.analog.rows": 32, "units.analog.adc.partial_sums": way})
        model = on_chip(nn.Sequential(layer), inputs, kind)
        layer = model[0]
        assert len(layer.tiles[0].blocks) == (4 if way == "digital" else 0)
        with torch.no_grad():
            errors[way] = float((model(inputs) - wanted).square().mean().sqrt())
        steps = [readout.table.quantiser.step for readout in layer.tiles[0].blocks] or [
            layer.readout.table.quantiser.step
        ]
        expected = (sum(step**2 for step in steps) / 12) ** 0.5  # of rounding; inputs and weights are fine
        assert errors[way] == pytest.approx(expected, rel=0.35)
        cim.restore_(model)


def test_gradients_are_those_of_the_function() -> None:
    inputs = torch.randn(64, 12)
    digital = nn.Sequential(nn.Linear(12, 12), nn.Tanh())
    digital(inputs).square().sum().backward()
    wanted = digital[0].weight.grad.clone()  # type: ignore[union-attr]
    digital.zero_grad()
    model = on_chip(digital, inputs, chip(**IDEAL))
    model(inputs).square().sum().backward()
    found = model[0].weight.grad
    assert torch.nn.functional.cosine_similarity(found.flatten(), wanted.flatten(), dim=0) > 0.999


def test_convolutions() -> None:
    inputs = torch.randn(3, 4, 8, 8)
    digital = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.ReLU(), nn.Conv2d(6, 2, 3))
    with torch.no_grad():
        wanted = digital(inputs)
    model = on_chip(digital, inputs, chip(**IDEAL))
    assert follows(model)["0"] == "1"
    with torch.no_grad():
        assert float((model(inputs) - wanted).abs().max()) < 0.05 * float(wanted.abs().max())


def test_saved_and_loaded_bit_for_bit(tmp_path: Path) -> None:
    inputs = torch.randn(64, 12)
    kind = chip(**{"units.analog.rows": 8, "units.analog.adc.partial_sums": "digital"})
    model = on_chip(Backwards(), inputs, kind, seed=4)
    with torch.no_grad():
        wanted = model(inputs)
        cim.save(cim.program_(model, seed=4), tmp_path)
        fresh = cim.load_(Backwards().eval(), tmp_path)
        assert torch.equal(fresh(inputs), wanted)
    assert follows(fresh) == follows(model)


def test_without_ranges() -> None:
    model = cim.convert_(nn.Sequential(nn.Linear(4, 4)), chip(**{"units.analog.input.range": "token"}))
    with pytest.raises(StateError, match="learned no range"):
        cim.program_(model)
