"""Module redundancy: copies of a layer, averaged. One field of the chip, read by numbers and cost."""

import math

import pytest
import torch
from torch import nn

import cimphony as cim
from cimphony.chip import load_chip
from cimphony.cost import estimate
from cimphony.cost.lifetime import programming
from cimphony.errors import CapacityError, ChipError, DataError
from cimphony.mapping import place
from cimphony.workload import Operation, Workload

ROWS, COLUMNS = 256, 128
FIVE = 5.0  # standard errors


def noisy(fidelity: str = "exact", **changes: object) -> cim.Chip:
    """8-bit weights in two-bit cells, noise on every cell alike, no converter in the way."""
    return load_chip("hyflexpim").replace(
        {
            "units.analog.cell": {
                "bits": 2,
                "device": {"kind": "gaussian", "additive": 0.1, "read": 0.05},
                "write": {"pulses": 4, "energy": 1e-12, "time": 1e-7},
            },
            "units.analog.adc": None,
            "units.analog.fidelity": fidelity,
            **changes,
        }
    )


def layer(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(ROWS, COLUMNS, bias=False))


def weight_noise(chip: cim.Chip) -> float:
    model = layer()
    digital = model[0].weight.detach().double()
    cim.program_(cim.convert_(model, chip), seed=3)
    clean = cim.program_(cim.convert_(layer(), chip.replace({"units.analog.cell.device": {"kind": "ideal"}})), seed=3)
    held, exact = (one[0].tiles[0].programmed.weights.double().T for one in (model, clean))
    assert float((exact - digital).abs().max()) < 1e-3  # quantisation alone
    scale = digital.abs().amax(dim=1, keepdim=True)
    return float(((held - exact) / scale).std())


@pytest.mark.parametrize("fidelity", ["exact", "effective"])
def test_the_noise_of_the_weights_falls_by_the_root_of_the_copies(fidelity: str) -> None:
    """Sample deviations of n independent normal errors have a relative standard error of 1 / sqrt(2 n)."""
    once = weight_noise(noisy(fidelity))
    for copies in (2, 4, 9):
        ratio = weight_noise(noisy(fidelity, redundancy={"*": copies})) / once
        assert ratio == pytest.approx(1 / math.sqrt(copies), rel=FIVE * math.sqrt(2 / (2 * ROWS * COLUMNS)))


@pytest.mark.parametrize("fidelity", ["exact", "effective"])
def test_read_noise_is_averaged_too(fidelity: str) -> None:
    tokens = 256
    inputs = torch.randn(1, ROWS).expand(tokens, -1)

    def spread(copies: int) -> float:
        chip = noisy(fidelity, redundancy={"0": copies})
        model = cim.program_(cim.convert_(layer(), chip), seed=0)
        with torch.no_grad():
            return float(model(inputs).double().var(dim=0).mean().sqrt())  # token by token: reads alone

    # copies hold slightly different cells, but every cell's read has the same spread
    assert spread(4) / spread(1) == pytest.approx(0.5, rel=FIVE * math.sqrt(2 / (2 * (tokens - 1) * COLUMNS)))


def test_the_first_copy_is_what_a_single_one_would_be() -> None:
    once, twice = (noisy(), noisy(redundancy={"*": 2}))
    one, two = (cim.program_(cim.convert_(layer(), chip), seed=5)[0].tiles[0].programmed for chip in (once, twice))
    (cells,) = one.cells.values()
    (first,), (second,) = two.cells.values(), two.others[0].cells.values()
    assert torch.equal(cells.conductance, first.conductance)
    assert not torch.equal(first.conductance, second.conductance)
    assert torch.equal(two.weights, torch.stack([one.weights, two.others[0].weights]).mean(dim=0))


def test_outputs_are_the_mean_of_the_copies_outputs() -> None:
    quiet = {"units.analog.cell.device": {"kind": "gaussian", "additive": 0.1}}
    model = cim.program_(cim.convert_(layer(), noisy(redundancy={"*": 3}, **quiet)), seed=1)
    inputs = torch.randint(-127, 128, (5, ROWS)).float()
    inputs[:, 0] = 127  # a token's own range is then 127, and nothing is rounded
    expected = inputs.double() @ model[0].tiles[0].programmed.weights.double()
    torch.testing.assert_close(model(inputs).double(), expected, rtol=1e-5, atol=1e-5)
    inputs.requires_grad_()
    model(inputs).sum().backward()
    torch.testing.assert_close(inputs.grad, model[0].tiles[0].programmed.weights.sum(dim=1).expand(5, -1))


def test_copies_of_a_perfect_chip_change_nothing() -> None:
    inputs = torch.randn(4, ROWS)
    model = cim.program_(cim.convert_(layer(), load_chip("ideal").replace({"redundancy": {"*": 4}})))
    torch.testing.assert_close(model(inputs), layer()(inputs), rtol=1e-6, atol=1e-6)


def block_workload(blocks: int = 4) -> Workload:
    names = [f"h.{at}.{name}" for at in range(blocks) for name in ("up", "down")]
    return Workload(
        model="by hand",
        operations=[Operation(layer=one, kind="static_matmul", m=4, k=128, n=128) for one in names],
    )


def test_cost_counts_the_extra_cells_and_reads() -> None:
    work, plain = block_workload(), noisy(**{"units.analog.schedule.copies": "one"})
    chip = plain.replace({"redundancy": {"h.0.*": 4, "*.up": 2}})
    cells = 128 * 128 * 4  # of one layer: 8 bits, two a cell
    held = {one.layer: one for block in place(work, chip).blocks for one in block.layers}
    assert {name: one.redundancy for name, one in held.items()} == {
        "h.0.up": 4, "h.0.down": 4, "h.1.up": 2, "h.1.down": 1,
    }  # fmt: skip
    assert [block.repetitions for block in place(work, chip).blocks] == [1, 3]
    extra = sum(one.cells * block.repetitions for block in place(work, chip).blocks for one in block.layers) - 8 * cells
    assert extra == (2 * (4 - 1) + 3 * (2 - 1)) * cells
    assert programming(work, chip).cells == (8 + 9) * cells
    one, more = estimate(work, plain), estimate(work, chip)
    assert more.dynamic_energy == pytest.approx(one.dynamic_energy * (8 + 9) / 8)
    assert more.latency == pytest.approx(one.latency)  # copies are read side by side
    assert any("5 layers are programmed up to 4 times" in said for said in more.assumptions)
    vain = estimate(work, plain.replace({"redundancy": {"g.*": 4}}))
    assert "redundancy: g.* names no layer in cells of this model" in vain.assumptions
    assert sum(row["energy"] for row in more.by("layer")) == pytest.approx(more.energy)
    assert {row["layer"] for row in more.by("layer")} == {row["layer"] for row in one.by("layer")}


def test_numbers_and_cost_hold_the_same_cells() -> None:
    chip = noisy(redundancy={"0": 3})
    model = cim.program_(cim.convert_(layer(), chip))
    programmed = model[0].tiles[0].programmed
    cells = sum(part.conductance.numel() for one in (programmed, *programmed.others) for part in one.cells.values())
    work = Workload(model="m", operations=[Operation(layer="0", kind="static_matmul", m=1, k=ROWS, n=COLUMNS)])
    assert place(work, chip).blocks[0].layers[0].cells == cells
    assert cim.summary(model).rows[0]["redundancy"] == 3


def test_capacity_counts_copies() -> None:
    chip = noisy(redundancy={"*": 100}, **{"units.analog.count": {"array": 512, "module": 1, "pu": 1}})
    with pytest.raises(CapacityError, match="arrays"):
        cim.convert_(layer(), chip, chips=1)


def test_bad_patterns_are_refused_with_the_way_out() -> None:
    with pytest.raises(ChipError, match=r"redundancy.* = 0 is not allowed"):
        noisy(redundancy={"*": 0})
    with pytest.raises(DataError, match=r"redundancy: 'h\.0\.\*' matches none .* named like '0'"):
        cim.convert_(layer(), noisy(redundancy={"h.0.*": 2}))


def test_the_field_survives_yaml_and_a_saved_model(tmp_path) -> None:
    chip = noisy(redundancy={"0": 2, "*.down": 3})
    (tmp_path / "chip.yaml").write_text(chip.to_yaml())
    assert load_chip(tmp_path / "chip.yaml") == chip
    assert (chip.redundancy_of("h.3.down"), chip.redundancy_of("h.3.up")) == (3, 1)
    chip = noisy("exact", redundancy={"0": 2})
    model, inputs = cim.program_(cim.convert_(layer(), chip), seed=2), torch.randn(3, ROWS)
    cim.save(model, tmp_path / "saved")
    assert torch.equal(cim.load_(layer(1), tmp_path / "saved")(inputs), model(inputs))
