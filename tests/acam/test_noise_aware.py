"""Noise-aware fine-tuning on any chip, and of ACAM thresholds by the differentiable match."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cimphony as cim
from cimphony.chip import Acam, Chip, Thresholds
from cimphony.circuits.acam import codes, compile_function
from cimphony.errors import DataError, StateError
from cimphony.methods.acam_thresholds import (
    LITERAL,
    WORKING,
    _soft_codes,
    code_error,
    tune_acams_,
    tune_rows,
)
from cimphony.methods.noise_aware import fit_, largest_error, largest_weight, training_seed
from cimphony.nn import analog_layers, calibration_of, load_calibration, recalibrate_
from cimphony.nn.acam import Readout

NOISY = {"units.analog.cell.device": {"kind": "gaussian", "additive": 0.15}, "units.analog.fidelity": "effective"}


def noisy(name: str) -> Chip:
    if name == "nl-dpe":
        return cim.load_chip(name).replace(
            {"units.analog.fidelity": "effective", "units.analog.adc.thresholds.device.scale": 8.0}
        )
    return cim.load_chip(name).replace(NOISY)


def batch(step: int, count: int = 64) -> dict[str, Tensor]:
    """Points of two classes, inside and outside a ring."""
    inputs = torch.randn(count, 6, generator=torch.Generator().manual_seed(step))
    return {"inputs": inputs, "labels": (inputs[:, :3].square().sum(dim=1) > 2.4).long()}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 2))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs)


def loss(model: nn.Module, one: Any) -> Tensor:
    return nn.functional.cross_entropy(model(one["inputs"]), one["labels"])


@pytest.fixture(scope="module")
def trained() -> dict[str, Any]:
    torch.manual_seed(0)
    model = Net()
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(300):
        optimiser.zero_grad()
        loss(model, batch(step)).backward()
        optimiser.step()
    return model.state_dict()


def on(chip: Chip, weights: dict[str, Any]) -> nn.Module:
    model = Net()
    model.load_state_dict(weights)
    cim.convert_(model.eval(), chip)
    with cim.calibrate(model), torch.no_grad():
        model(batch(5, 512)["inputs"])
    return model


def lost(model: nn.Module, seeds: range = range(6)) -> float:
    """Mean loss over chips that training never saw, on points it never saw."""
    model.eval()
    with torch.no_grad():
        return sum(float(loss(cim.program_(model, seed=seed), batch(9999, 1000))) for seed in seeds) / len(seeds)


@pytest.mark.parametrize("name", ["hyflexpim", "nl-dpe"])
def test_recovers_on_chips_that_training_never_saw(name: str, trained: dict[str, Any]) -> None:
    digital = Net()
    digital.load_state_dict(trained)
    with torch.no_grad():
        ideal = float(loss(digital, batch(9999, 1000)))
    model = on(noisy(name), trained)
    before = lost(model)
    assert before > ideal + 0.1
    fit_(model, lambda step: batch(1000 + step), 100, lr=5e-3, loss=loss)
    assert lost(model) - ideal < 0.6 * (before - ideal)


def test_every_step_has_a_chip_of_its_own(trained: dict[str, Any]) -> None:
    model, seen = on(noisy("hyflexpim"), trained), []

    def watched(one: nn.Module, data: Any) -> Tensor:
        seen.extend({tiles.programmed.seed for layer in analog_layers(one).values() for tiles in layer.tiles})  # type: ignore[union-attr]
        return loss(one, data)

    fit_(model, batch, 4, loss=watched, seed=3)
    assert seen == [training_seed(3, step) for step in range(4)]
    assert min(seen) >= 1 << 62


def test_resumed_bit_for_bit(trained: dict[str, Any], tmp_path: Path) -> None:
    kept = tmp_path / "run.safetensors"

    def breaks(step: int) -> dict[str, Tensor]:
        if step == 5:
            raise KeyboardInterrupt
        return batch(step)

    whole = on(noisy("nl-dpe"), trained)
    expected = fit_(whole, batch, 8, loss=loss)
    model = on(noisy("nl-dpe"), trained)
    with pytest.raises(KeyboardInterrupt):
        fit_(model, breaks, 8, loss=loss, checkpoint=kept, save_every=2)
    fresh = on(noisy("nl-dpe"), trained)
    assert fit_(fresh, batch, 8, loss=loss, checkpoint=kept, save_every=2) == expected
    assert all(torch.equal(fresh.state_dict()[name], value) for name, value in whole.state_dict().items())


def outlying(weights: dict[str, Any]) -> nn.Module:
    """On a chip whose ranges an outlier has made eight times too wide."""
    model = Net()
    model.load_state_dict(weights)
    cim.convert_(model.eval(), cim.load_chip("nl-dpe").replace({"units.analog.fidelity": "effective"}))
    with cim.calibrate(model), torch.no_grad():
        model(8 * batch(5, 512)["inputs"])
    return model


def test_trained_ranges_leave_outliers_out(trained: dict[str, Any]) -> None:
    """Weights hardly move here: what is won comes from the ranges, which stay for chips to come."""
    model = outlying(trained)
    spans = [layer.readout.span for layer in analog_layers(model).values()]  # type: ignore[union-attr]
    before = lost(model)
    fit_(model, lambda step: batch(1000 + step), 60, lr=1e-9, ranges=0.05, loss=loss)
    now = [layer.readout.span for layer in analog_layers(model).values()]  # type: ignore[union-attr]
    assert now[0][1] < 0.5 * spans[0][1]  # type: ignore[index]
    assert lost(model) < 0.7 * before
    assert set(model.state_dict()) == set(trained)
    assert all(torch.allclose(value, trained[name], atol=1e-6) for name, value in model.state_dict().items())


def test_a_range_weighs_what_it_cuts_off_against_its_noise() -> None:
    readout = Readout(Acam(bits=4), "layer")
    readout.span = (-1.0, 1.0)
    readout.program(0)
    readout.ends = torch.tensor([-1.0, 1.0], requires_grad=True)
    values = torch.tensor([3.0, 0.03], requires_grad=True)
    found = readout(values)
    (cut_off,) = torch.autograd.grad(found[0], readout.ends, retain_graph=True)
    assert cut_off.tolist() == [0, 1]  # the end is what comes out
    error = float((found - values).detach()[1])
    (inside,) = torch.autograd.grad(found[1], readout.ends, retain_graph=True)
    assert inside.tolist() == pytest.approx([-error / 2, error / 2])  # it grows with the width, 2
    assert torch.autograd.grad(found.sum(), values)[0].tolist() == [0, 1]


def test_a_tuned_model_keeps_its_ranges_where_it_is_put_on_chips_anew(trained: dict[str, Any], tmp_path: Path) -> None:
    chip = noisy("nl-dpe")
    model = on(chip, trained)
    fit_(model, lambda step: batch(1000 + step), 20, lr=1e-3, ranges=0.05, loss=loss)
    direct, learned = [lost(model, range(seed, seed + 1)) for seed in range(2)], calibration_of(model)
    cim.save(model, tmp_path)
    cim.restore_(model)

    def on_chips(calibration: Any) -> list[float]:
        def metric(one: nn.Module) -> float:
            return float(loss(one, batch(9999, 1000)).detach())

        record = cim.evaluate_chips(model, metric, chip, seeds=range(2), calibration=calibration)
        return [point["value"] for point in record.results["points"]]

    assert on_chips(learned) == on_chips(load_calibration(tmp_path, chip)) == direct
    assert on_chips(batch(5, 512)["inputs"]) != direct
    assert load_calibration(tmp_path, chip.only("converters")) is not None  # the same ranges, whatever the noise
    assert load_calibration(tmp_path, chip.replace({"units.analog.adc.bits": 7})) is None
    with pytest.raises(DataError, match="the calibration is of another model or chip"):
        recalibrate_(cim.convert_(Net(), noisy("hyflexpim")), learned)


def test_trained_ranges_are_resumed(trained: dict[str, Any], tmp_path: Path) -> None:
    kept, how = tmp_path / "run.safetensors", {"ranges": 0.02, "loss": loss}

    def breaks(step: int) -> dict[str, Tensor]:
        if step == 5:
            raise KeyboardInterrupt
        return batch(step)

    whole, model, fresh = (outlying(trained) for _ in range(3))
    expected = fit_(whole, batch, 8, **how)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        fit_(model, breaks, 8, checkpoint=kept, save_every=2, **how)  # type: ignore[arg-type]
    assert set(model.state_dict()) == set(trained)
    assert fit_(fresh, batch, 8, checkpoint=kept, save_every=2, **how) == expected  # type: ignore[arg-type]
    spans = [[layer.readout.span for layer in analog_layers(one).values()] for one in (whole, fresh)]  # type: ignore[union-attr]
    assert spans[0] == spans[1]


def test_regularisers(trained: dict[str, Any]) -> None:
    model = cim.program_(on(noisy("hyflexpim"), trained), seed=1)
    weights = {name: layer.weight for name, layer in analog_layers(model).items()}
    assert largest_weight(model).item() == max(one.abs().max().item() for one in weights.values())
    errors = {
        name: (layer.tiles[0].programmed.weights - layer.matrices()[0]).abs().max().item()  # type: ignore[union-attr]
        for name, layer in analog_layers(model).items()
    }
    found = largest_error(model)
    assert found.item() == pytest.approx(max(errors.values()))
    found.backward()
    worst = max(errors, key=lambda name: errors[name])
    gradient = weights[worst].grad
    assert gradient is not None
    assert float(gradient.abs().sum()) == pytest.approx(errors[worst] / weights[worst].abs().max().item())
    sizes = []
    for peak in (0.0, 3.0):
        model = on(noisy("hyflexpim"), trained)
        fit_(model, batch, 30, lr=3e-3, peak=peak, error=peak, loss=loss)
        sizes.append(largest_weight(model).item())
    assert sizes[1] < sizes[0] - 0.02


NOISE = Acam(thresholds=Thresholds())


@pytest.mark.parametrize("gray", [True, False])
def test_the_soft_match_ends_at_the_hard_one(gray: bool) -> None:
    rows = compile_function(torch.tanh, (-3.0, 3.0), 6, gray=gray)
    x = torch.linspace(-2.99, 2.99, 400, dtype=torch.float64)
    edges = torch.cat([rows.low, rows.high], dim=1)
    x = x[((x[:, None] - edges).abs() > 2e-3).all(dim=1)]
    cold = replace(WORKING, temperature=(1e-5, 1e-5))
    for recipe in (cold, LITERAL):
        low, high = rows.low.double().clamp(min=-13), rows.high.double().clamp(max=13)
        found = _soft_codes(x, low, high, rows, recipe, 1.0)[0]
        assert float((found - codes(x.float(), rows)).abs().max()) < 0.05


def test_thresholds_that_are_off_are_found_again() -> None:
    """Bounds shifted by three codes: the working recipe brings them back, ten steps of 1e-4 cannot."""
    rows = compile_function(torch.sigmoid, (-4.0, 4.0), 6)
    off = replace(rows, low=rows.low + 0.3, high=rows.high + 0.3)
    acam = NOISE.model_copy(update={"bits": 6})
    before, ideal = (sum(code_error(one, torch.sigmoid, acam, range(10))) / 10 for one in (off, rows))
    literal, working = (tune_rows(off, torch.sigmoid, acam, recipe) for recipe in (LITERAL, WORKING))
    finite = off.low.isfinite()
    assert float((literal.low - off.low)[finite].abs().max()) <= 1.01e-3
    after, barely = (sum(code_error(one, torch.sigmoid, acam, range(10))) / 10 for one in (working, literal))
    assert before > 2 * ideal
    assert barely > 0.95 * before
    assert after < ideal + 0.4 * (before - ideal)
    assert torch.equal(working.low.isinf(), rows.low.isinf())


def test_tuned_rows_are_programmed_saved_and_forgotten(trained: dict[str, Any], tmp_path: Path) -> None:
    quick = replace(WORKING, steps=2, every=1, validate=1, points=64)
    model = tune_acams_(on(cim.load_chip("nl-dpe").replace({"units.analog.fidelity": "effective"}), trained), quick)
    readout = model.layers[0].readout  # type: ignore[index, union-attr]
    rows = readout.rows()
    readout.tuned = replace(rows, low=rows.low + 0.05, high=rows.high + 0.05)
    inputs = batch(3)["inputs"]
    with torch.no_grad():
        wanted = cim.program_(model, seed=0)(inputs)
        cim.save(model, tmp_path)
        assert torch.equal(cim.load_(Net().eval(), tmp_path)(inputs), wanted)
        with cim.calibrate(model):
            model(inputs)
    assert readout.tuned is None


def test_errors(trained: dict[str, Any]) -> None:
    with pytest.raises(StateError, match="convert_"):
        fit_(Net(), batch, 1, loss=loss)
    with pytest.raises(StateError, match="no range"):
        fit_(cim.convert_(Net(), cim.load_chip("nl-dpe")), batch, 1, loss=loss, ranges=0.02)
    with pytest.raises(StateError, match="ACAM readout"):
        tune_acams_(on(noisy("hyflexpim"), trained))
    with pytest.raises(DataError, match="exact"):
        tune_rows(compile_function(torch.relu, (-1.0, 1.0), 8), torch.relu, Acam())
    with pytest.raises(DataError, match="gives no loss"):
        fit_(on(noisy("hyflexpim"), trained), lambda step: {"inputs": batch(step)["inputs"]}, 1)
