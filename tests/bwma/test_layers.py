"""Binary layers: the chip's exact read is the float forward, bit for bit; folding, lossy converters, costs, errors."""

import copy
import itertools

import pytest
import torch
from torch import nn

import cimphony as cim
from cimphony.methods import bwma, bwma_cost
from cimphony.methods.bwma_weights import RULES

CHIPS = ("cim-sram-22", "cim-rram-22", "cim-fefet-22")


def network() -> nn.Sequential:
    """Every kind of layer that matters: strides, groups, padding, dilation, normalisation, linear, a bias."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=2), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 20, 3, padding="same", dilation=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(80, 33, bias=False), nn.BatchNorm1d(33), nn.ReLU(), nn.Linear(33, 4),
    )  # fmt: skip


def images(count: int = 5) -> torch.Tensor:
    return torch.randn(count, 3, 9, 10, generator=torch.Generator().manual_seed(1))


def trained(**settings: object) -> nn.Module:
    """A binary network whose normalisations have seen something."""
    model = bwma.calibrate_(bwma.binarise_(network(), **settings), images())  # type: ignore[arg-type]
    for _ in range(2):
        model.train()(images(16))
    return model.eval()


def lossless(bits: int, chip: str = "cim-sram-22") -> cim.Chip:
    return cim.load_chip(chip).replace(
        {"units.analog.input.bits": bits, "units.analog.adc.bits": 8, "units.analog.adc.range": "level"}
    )


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("rule", RULES)
def test_exact_read_equals_the_float_forward(rule: str, bits: int) -> None:
    model = trained(bits=bits, rule=rule)
    digital = model(images())
    bwma.deploy_(model, lossless(bits))
    assert torch.equal(model(images()), digital)
    assert torch.equal(bwma.retract_(model)(images()), digital)


def test_every_layer_is_read_exactly_and_without_a_converter_too() -> None:
    model = trained(bits=3, grain="layer")
    outputs: dict[str, list[torch.Tensor]] = {}
    for name, layer in bwma.binary_layers(model).items():
        layer.register_forward_hook(lambda _, __, y, name=name: outputs.setdefault(name, []).append(y))
    for chip in (None, lossless(3), lossless(3).replace({"units.analog.adc": None, "units.analog.rows": 7})):
        if chip is not None:
            bwma.deploy_(model, chip)
        model(images())
    assert list(outputs) == ["3", "6", "10"]
    assert all(torch.equal(one[0], other) for one in outputs.values() for other in one)


def test_float_forward_is_alpha_b_plus_beta() -> None:
    """In training and in evaluation the layer is a product with alpha b + beta; the codes only make it exact."""
    model = trained(bits=4, form="dorefa")
    for layer in bwma.binary_layers(model).values():
        size = (2, layer.weight.shape[1] * layer.groups, *([9, 9] if isinstance(layer, nn.Conv2d) else []))
        x = torch.rand(size, generator=torch.Generator().manual_seed(2))
        found = layer.eval()(x)
        plain = layer.product(layer.staircase(x), layer.binary().weight())
        if layer.bias is not None:
            plain = plain + layer.bias.view(-1, 1, 1)
        torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(layer.train()(x), plain, rtol=1e-5, atol=1e-5)


def test_first_and_last_stay_and_exclude_chooses() -> None:
    assert list(bwma.binary_layers(bwma.binarise_(network()))) == ["3", "6", "10"]
    assert list(bwma.binary_layers(bwma.binarise_(network(), exclude=["[36]"]))) == ["0", "10", "13"]


def test_folding_leaves_the_function() -> None:
    model = trained(bits=4)
    before = model(images())
    bwma.fold_batchnorm_(model)
    assert isinstance(model[4], nn.Identity)
    assert isinstance(model[11], nn.Identity)
    assert isinstance(model[1], nn.BatchNorm2d)  # its convolution is not binary
    torch.testing.assert_close(model(images()), before, rtol=1e-4, atol=1e-5)
    digital = model(images())
    assert torch.equal(bwma.deploy_(model, lossless(4))(images()), digital)


def test_five_bit_converters_lose_something_and_a_seed_is_a_chip() -> None:
    model = trained(bits=4)
    digital, chip = model(images()), cim.load_chip("cim-rram-22")
    first, again, other = (bwma.deploy_(model, chip, seed=s, sample=images())(images()) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    error = float((first - digital).detach().abs().max() / digital.detach().abs().max())
    assert 0 < error < 0.5


def test_batch_split_does_not_matter() -> None:
    """Read noise included: the chip counts the pixels that it has read."""
    model, chip = trained(bits=2), lossless(2, "cim-rram-22").replace({"units.analog.adc": None})
    layer, x = bwma.binary_layers(model)["3"], torch.rand(5, 8, 9, 10, generator=torch.Generator().manual_seed(4))
    bwma.deploy_(model, chip)
    whole = layer(x)
    bwma.deploy_(model, chip)
    assert torch.equal(torch.cat([layer(x[:2]), layer(x[2:])]), whole)
    assert not torch.equal(layer(x), whole)


def test_the_library_reads_binary_weights_by_itself() -> None:
    """convert_ on the same chip: signs with mean-|W| scale, the sum of inputs undone digitally, exact."""
    layer = nn.Linear(300, 9, bias=False)
    model, x = nn.Sequential(layer), torch.randint(0, 16, (4, 300), generator=torch.Generator().manual_seed(3)).float()
    x[:, 0] = 15
    expected = (x @ torch.where(layer.weight >= 0, 1.0, -1.0).T) * layer.weight.abs().mean(dim=1)
    cim.program_(cim.convert_(model, lossless(4)))
    torch.testing.assert_close(model(x), expected.detach(), rtol=1e-6, atol=0)
    with pytest.raises(
        cim.DataError, match=r"layer \S+: its inputs are negative, but the chip's input\.signed is false"
    ):
        model(-x)


def test_calibration_does_not_depend_on_the_scale_of_the_weights() -> None:
    """Statistics of the float weights would be far off for signs without a scale."""
    clips = []
    for rule in ("sign", "mean"):
        model = bwma.binarise_(network(), rule=rule)
        before = model[4].running_var.clone()
        bwma.calibrate_(model, images())
        assert torch.equal(model[4].running_var, before)
        clips.append(float(bwma.binary_layers(model)["6"].staircase.clip))
    assert clips[0] == pytest.approx(clips[1], rel=0.3)


def test_training_improves_and_annealing_sharpens() -> None:
    model, x = bwma.binarise_(network(), bits=3), images(24)
    target = x.mean(dim=(1, 2, 3)).gt(0).long()
    optimiser, losses = torch.optim.Adam(model.parameters(), lr=5e-3), []
    for step in range(15):
        bwma.anneal_(model, step / 14)
        loss = nn.functional.cross_entropy(model.train()(x), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    assert {one.staircase.sharpness for one in bwma.binary_layers(model).values()} == {50.0}


def test_cost_is_linear_in_the_bits_and_counted_by_hand() -> None:
    model = bwma.binarise_(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 200, 3, padding=1),
                                         nn.Flatten(), nn.Linear(200 * 64, 2)))  # fmt: skip
    work = bwma_cost.array_workload(model, (3, 8, 8))
    (layer,) = [one for one in work.operations if one.kind == "static_matmul"]
    assert (layer.layer, layer.m, layer.k, layer.n) == ("1", 64, 72, 201)  # 200 outputs and the dummy column
    rows = bwma_cost.cost_of_bits(work, [cim.load_chip(name) for name in CHIPS], (1, 2, 3, 8))
    assert len(rows) == 12
    for chip in CHIPS:
        mine = [row for row in rows if row["chip"] == chip]
        assert len({row["area"] for row in mine}) == 1  # bits are serial: no area
        assert [row["latency"] / mine[0]["latency"] for row in mine] == pytest.approx([1, 2, 3, 8])
        steps = [b["energy"] - a["energy"] for a, b in itertools.pairwise(mine)]
        assert steps[0] == pytest.approx(steps[1]) == pytest.approx(steps[2] / 5)
    assert mine[0]["latency"] == pytest.approx(64 * 50e-9)
    adc = cim.estimate(work, cim.load_chip("cim-sram-22").replace({"units.analog.input.bits": 3}))
    conversions = 64 * 3 * 201
    per = {row["component"]: row["energy"] for row in adc.by("component")}["analog.cell"]
    assert per == pytest.approx(64 * 3 * 72 * 201 * 0.1e-15)
    assert conversions == 38592


def test_knee_by_hand() -> None:
    runs = {1: [0.50, 0.52], 2: [0.60, 0.62], 3: [0.615, 0.625], 4: [0.62, 0.63], 8: [0.61, 0.63]}
    assert bwma_cost.knee(runs) == 3  # best 0.625 at 4 bits, standard error 0.005: 0.62 is within
    assert bwma_cost.knee({1: [0.9, 0.9], 8: [0.9, 0.9]}) == 1
    with pytest.raises(cim.DataError, match="at least two runs"):
        bwma_cost.knee({1: [0.5]})


def test_errors() -> None:
    with pytest.raises(cim.DataError, match="has no layer left to make binary: it has 1"):
        bwma.binarise_(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(cim.DataError, match="rule = 'x' is unknown"):
        bwma.binarise_(network(), rule="x")  # type: ignore[arg-type]
    with pytest.raises(cim.StateError, match="no binary layer: bwma"):
        bwma.deploy_(network(), lossless(4))
    model = trained(bits=4)
    with pytest.raises(cim.ChipError, match="layer 3 has activations of 4 bits, the chip inputs of 3"):
        bwma.deploy_(copy.deepcopy(model), lossless(3))
    with pytest.raises(cim.ChipError, match="'hyflexpim' does not keep binary weights"):
        bwma.deploy_(model, cim.load_chip("hyflexpim"))
    with pytest.raises(cim.StateError, match=r"adc\.range is calibrated: give deploy_ a sample"):
        bwma.deploy_(model, cim.load_chip("cim-sram-22"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"units.analog.encoding.bits": 4}, "binary takes 1 bit"),
        ({"units.analog.cell": {"bits": 2, "device": {"kind": "ideal"}}}, "binary needs cells of 1 bit"),
        ({"units.analog.input.coding": "pulse_width"}, "signed = false needs coding: bit_serial"),
        ({"units.analog.input": {"bits": 1}}, "bits = 1 leaves nothing beside the sign"),
    ],
)
def test_chips_that_make_no_sense(change: dict, message: str) -> None:
    with pytest.raises(cim.ChipError, match=message):
        cim.load_chip("cim-sram-22").replace(change)
