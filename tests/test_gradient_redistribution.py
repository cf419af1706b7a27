"""Gradient redistribution: counts are kept, forwards agree, modes follow importance, a run resumes."""

from pathlib import Path

import pytest
import torch
from torch import nn

import cimphony as cim
from cimphony.methods.gradient_redistribution import (
    GradientRedistribution,
    assign_,
    decompose_,
    fuse_,
    gradient_share,
)
from cimphony.nn.low_rank import FusedLowRank, LowRankLinear, hard_threshold


def model() -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(96, 64), nn.Tanh(), nn.Linear(64, 32, bias=False), nn.Tanh(), nn.Linear(32, 4))
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5
    return net


def batches(count: int = 6) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.randn(16, 96, generator=generator) for _ in range(count)]
    return [(x, (x[:, :4].argmax(dim=1))) for x in inputs]


def loss(net: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return nn.functional.cross_entropy(net(batch[0]), batch[1])


@pytest.mark.parametrize("shape", [(1024, 1024), (4096, 1024), (384, 1536), (7, 5), (1, 9)])
def test_hard_threshold_keeps_weights_and_multiply_adds(shape: tuple[int, int]) -> None:
    m, n = shape
    rank = hard_threshold(m, n)
    assert m * n - (m + n) < rank * (m + n) <= m * n or rank == 1


def test_published_ranks() -> None:
    assert hard_threshold(1024, 1024) == 512
    assert hard_threshold(1024, 4096) == 819


def test_full_rank_is_the_layer() -> None:
    net, x = model(), torch.randn(5, 96)
    expected = net(x)
    decompose_(net, rank=1.0)
    torch.testing.assert_close(net(x), expected, rtol=1e-5, atol=1e-5)
    fuse_(net)
    torch.testing.assert_close(net(x), expected, rtol=1e-5, atol=1e-5)
    assert isinstance(net[0], FusedLowRank)


def test_conv1d_of_gpt2_is_decomposed() -> None:
    from transformers.pytorch_utils import Conv1D

    net, x = nn.Sequential(Conv1D(12, 8)), torch.randn(3, 8)
    expected = net(x)
    torch.testing.assert_close(decompose_(net, rank=1.0)(x), expected, rtol=1e-5, atol=1e-5)


def test_fused_and_unfused_agree_after_training() -> None:
    net = decompose_(model())
    GradientRedistribution(epochs=1, lr=1e-2).fit(net, batches(), loss=loss, progress=False)
    x = torch.randn(5, 96)
    expected = net(x)
    torch.testing.assert_close(fuse_(net)(x), expected, rtol=1e-5, atol=1e-5)


def test_gradients_are_the_mean_over_steps() -> None:
    """Against sums made by hand, with a learning rate that moves nothing."""
    net = decompose_(model())
    expected = torch.zeros(net[0].sigma.numel(), dtype=torch.float64)
    for batch in batches():
        net.zero_grad()
        loss(net, batch).backward()
        expected += net[0].sigma.grad.abs().double()
    net.zero_grad()
    GradientRedistribution(epochs=1, lr=1e-30).fit(net, batches(), loss=loss, progress=False)
    torch.testing.assert_close(net[0].gradient.double(), expected / 6, rtol=1e-4, atol=1e-9)
    last = decompose_(model())
    GradientRedistribution(epochs=1, lr=1e-30, statistic="last").fit(last, batches(), loss=loss, progress=False)
    assert not torch.allclose(last[0].gradient, net[0].gradient)


def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path) -> None:
    whole = decompose_(model())
    GradientRedistribution(epochs=3, lr=1e-2).fit(whole, batches(), loss=loss, progress=False)
    broken, path = decompose_(model()), tmp_path / "run.safetensors"
    GradientRedistribution(epochs=1, lr=1e-2).fit(broken, batches(), loss=loss, checkpoint=path, progress=False)
    fresh = decompose_(model())
    GradientRedistribution(epochs=3, lr=1e-2).fit(fresh, batches(), loss=loss, checkpoint=path, progress=False)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[name]), name


def trained() -> nn.Module:
    net = decompose_(model())
    GradientRedistribution(epochs=1, lr=1e-3).fit(net, batches(), loss=loss, progress=False)
    return fuse_(net)


def test_both_sides_of_a_rank_share_its_mode() -> None:
    net = trained()
    gradient = net[0].gradient.clone()
    cim.convert_(net, cim.load_chip("hyflexpim"))
    assign_(net, 0.25, by="gradient")
    right, left = net[0].right.tiles[0].assignment, net[0].left.tiles[0].assignment
    assert (right.axis, left.axis) == ("column", "row")
    assert torch.equal(right.modes["slc"], left.modes["slc"])
    count = -(-gradient.numel() // 4)
    assert set(right.modes["slc"].tolist()) == set(gradient.topk(count).indices.tolist())
    cim.program_(net, seed=0)
    assert torch.isfinite(net(torch.randn(3, 96))).all()


@pytest.mark.parametrize("fidelity", ["exact", "effective"])
@pytest.mark.parametrize("slc_rate", [0.0, 0.3, 1.0])
def test_mixed_modes_without_noise_are_the_digital_product(slc_rate: float, fidelity: str) -> None:
    net, x = trained().double(), torch.randn(4, 96, dtype=torch.float64)
    chip = cim.load_chip("hyflexpim").replace(
        {
            "units.analog.cell.device": {"kind": "ideal"},
            "units.analog.adc": None,
            "units.analog.fidelity": fidelity,
            "units.analog.input.bits": 12,
            "units.analog.encoding.bits": 12,
        }
    )
    digital = net(x)
    cim.program_(assign_(cim.convert_(net, chip), slc_rate, by="singular_value"), seed=0)
    assert (net(x) - digital).abs().max() < 0.01 * digital.abs().max()


def test_more_reliable_cells_help_and_the_right_ranks_matter() -> None:
    def error(slc_rate: float, by: str) -> float:
        net, x = trained(), torch.randn(64, 96, generator=torch.Generator().manual_seed(5))
        digital = net(x)
        chip = cim.load_chip("hyflexpim").replace(
            {"units.analog.cell.device": {"slc": {"kind": "ideal"}, "mlc": {"kind": "gaussian", "multiplicative": 0.3}}}
        )
        assign_(cim.convert_(net, chip), slc_rate, by=by)
        total = 0.0
        with torch.no_grad():
            for seed in range(4):
                total += float((cim.program_(net, seed=seed)(x) - digital).square().mean())
        return total

    assert error(1.0, "gradient") < error(0.5, "gradient") < error(0.0, "gradient")
    assert error(0.2, "singular_value") < error(0.2, "random")


def test_gradient_share() -> None:
    layer = LowRankLinear.from_weight(torch.eye(10), None, 10)
    layer.gradient.copy_(torch.tensor([5.0, 3.0, *[0.25] * 8]))
    assert gradient_share(layer, 0.1) == pytest.approx(0.5)
    assert gradient_share(layer, 0.2) == pytest.approx(0.8)


def test_wrong_order_and_bad_values() -> None:
    with pytest.raises(cim.StateError, match=r"decompose_\(model\) comes first"):
        fuse_(model())
    with pytest.raises(cim.DataError, match="leaves to decompose"):
        decompose_(model(), exclude=["*"])
    with pytest.raises(cim.DataError, match="choose 1 to 64"):
        decompose_(model(), rank=65)
    with pytest.raises(cim.DataError, match="above 0 and at most 1"):
        decompose_(model(), rank=1.5)
    net = cim.convert_(fuse_(decompose_(model())), cim.load_chip("hyflexpim"))
    with pytest.raises(cim.StateError, match=r"no gradient statistics"):
        assign_(net, 0.1)
    with pytest.raises(cim.DataError, match="slc_rate = 2"):
        assign_(net, 2, by="random")
    single = cim.convert_(
        model(), cim.load_chip("hyflexpim").replace({"units.analog.cell": {"bits": 2, "device": {"kind": "ideal"}}})
    )
    with pytest.raises(cim.DataError, match="has one cell mode"):
        assign_(single, 0.1, by="magnitude")
    with pytest.raises(cim.DataError, match="no step was taken"):
        GradientRedistribution().fit(decompose_(model()), [], loss=loss, progress=False)


def test_cost_reads_the_same_modes() -> None:
    """Cells by mode, from numbers and from cost, for a decomposed layer at the chip's own SLC rate."""
    net = trained()
    work = cim.trace(net, inputs=(1, 96))
    cim.program_(assign_(cim.convert_(net, cim.load_chip("hyflexpim")), 0.25))
    chip = net[0].left.tiles[0].chip
    assert chip.units["analog"].cell.slc_rate == 0.25
    for placed in (layer for block in cim.place(work, chip).blocks for layer in block.layers):
        tiles = net.get_submodule(placed.layer).tiles[0].programmed
        cells = sum(part.conductance.numel() for part in tiles.cells.values())
        assert cells == placed.cells, placed.layer
