"""Products by log, add, exp and softmax by exp, sum, log, exp; through the attention interface of four families."""

from typing import Any

import pytest
import torch
import transformers

import cimphony as cim
from cimphony.chip import Acam, AcamUnit, Thresholds
from cimphony.nn import attention_layers
from cimphony.nn.acam_attention import Multiplier, Softmax

UNIT = AcamUnit(arrays="analog")


def test_products_are_logs_added() -> None:
    """Relative error of a product, ideal cells: two logs of 8 bits over 8 octaves, half a step of 2.2 % each."""
    left, right = 0.1 + 0.9 * torch.rand(2, 64, 1), 0.1 + 0.9 * torch.rand(2, 1, 64)
    left, right = left * torch.rand(2, 64, 1).sub(0.5).sign(), right * torch.rand(2, 1, 64).sub(0.5).sign()
    found = Multiplier(Acam(), UNIT, (1.0, 1.0, 1.0), seed=0, name="m")(left, right)
    wanted = left @ right
    assert torch.equal(found.sign(), wanted.sign())
    error = (found - wanted).abs()
    assert bool((error <= 0.0222 * wanted.abs() + 0.5 / 255 + 1e-4).all())
    sd = float(((found - wanted) / wanted)[wanted.abs() > 0.3].std())
    assert sd == pytest.approx(0.0217 / 6**0.5, rel=0.35)


@pytest.mark.parametrize(("noisy", "sd", "median", "rare"), [(False, 0.0162, 0.011, 0.041), (True, 0.063, 0.031, 0.20)])
def test_the_error_of_a_product_as_stated(noisy: bool, sd: float, median: float, rare: float) -> None:
    """Normal operands, products above a twentieth of the largest: docs/nl_dpe.md states sd, median and 99 %."""
    numbers = torch.Generator().manual_seed(0)
    left, right = torch.randn(1, 300, 1, generator=numbers), torch.randn(1, 1, 300, generator=numbers)
    wanted = left @ right
    largest = (float(left.abs().max()), float(right.abs().max()), float(wanted.abs().max()))
    acam, errors = Acam(thresholds=Thresholds() if noisy else None), []
    for seed in range(20 if noisy else 1):
        found = Multiplier(acam, UNIT, largest, seed=seed, name="m")(left, right)
        errors.append(((found - wanted) / wanted)[wanted.abs() > 0.05 * largest[2]])
    error = torch.cat(errors)
    assert float(error.std()) == pytest.approx(sd, rel=0.15)
    assert abs(float(error.mean())) < 0.01
    assert float(error.abs().median()) == pytest.approx(median, rel=0.15)
    assert float(error.abs().sort().values[int(0.99 * error.numel())]) == pytest.approx(rare, rel=0.15)


@pytest.mark.parametrize(("tokens", "mean", "sd"), [(32, 1.0, 0.024), (128, 0.98, 0.038)])
def test_noisy_softmax_sums_to_one_as_stated(tokens: int, mean: float, sd: float) -> None:
    scores = 2 * torch.randn(300, tokens, generator=torch.Generator().manual_seed(0))
    largest = float((scores - scores.amax(dim=-1, keepdim=True)).exp().sum(dim=-1).max())
    sums = torch.stack(
        [
            Softmax(Acam(thresholds=Thresholds()), largest, seed=seed, name="s")(scores, None).sum(-1)
            for seed in range(20)
        ]
    )
    assert float(sums.mean()) == pytest.approx(mean, abs=0.01)
    assert float(sums.std()) == pytest.approx(sd, rel=0.25)


def test_zero_times_anything_is_zero_and_sums_are_exact() -> None:
    left, right = torch.randn(3, 5, 7), torch.randn(3, 7, 4)
    left[0], right[1] = 0.0, 0.0
    made = Multiplier(Acam(thresholds=Thresholds()), UNIT, (4.0, 4.0, 9.0), seed=2, name="m")
    found = made(left, right)
    assert not found[0].any()
    assert not found[1].any()
    each = torch.stack([made(left[..., k : k + 1], right[:, k : k + 1]) for k in range(7)]).sum(dim=0)
    torch.testing.assert_close(found, each, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("released", [False, True])
def test_floors(released: bool) -> None:
    unit = AcamUnit(arrays="analog", floor=1e-9, floor_is="added", log_scales="own") if released else UNIT
    made = Multiplier(Acam(), unit, (1.0, 1.0, 1.0), seed=0, name="m")
    left, right = torch.rand(1, 200, 1) + 0.2, torch.rand(1, 1, 200).clamp(min=0.2)
    error = ((made(left.clamp(max=1), right) - left.clamp(max=1) @ right) / (left @ right)).std()
    assert (float(error) > 0.03) == released  # 20.7 instead of 5.5 in the same 256 codes


def test_softmax_sums_to_one_within_its_codes() -> None:
    """Shares are rounded to 1/255, log of the sum to log(32)/255: rows of 32 sum to 1 within 4 % (sd)."""
    scores = 2 * torch.randn(500, 32)
    shares = Softmax(Acam(), 32.0, seed=0, name="s")(scores, None)
    sums = shares.sum(dim=-1)
    assert float((sums - 1).abs().mean()) < 0.04
    assert float((shares - scores.softmax(dim=-1)).abs().max()) < 0.02
    allowed = torch.rand(500, 32) < 0.5
    allowed[:, 0] = True
    assert not Softmax(Acam(thresholds=Thresholds()), 32.0, seed=0, name="s")(scores, allowed)[~allowed].any()


SMALL: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
FAMILIES: dict[str, tuple[str, Any]] = {
    "bert": ("BertForSequenceClassification", transformers.BertConfig(**SMALL, vocab_size=50)),
    "gpt2": ("GPT2LMHeadModel", transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=50, n_positions=64)),
    "llama": (
        "LlamaForCausalLM",
        transformers.LlamaConfig(**SMALL, num_key_value_heads=1, vocab_size=50, max_position_embeddings=64),
    ),
    "vit": (
        "ViTForImageClassification",
        transformers.ViTConfig(**SMALL, image_size=16, patch_size=4, num_channels=1),
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_families(family: str) -> None:
    name, config = FAMILIES[family]
    model = getattr(transformers, name)(config).eval()
    if family == "vit":
        batch = {"pixel_values": torch.randn(3, 1, 16, 16)}
    else:
        batch = {"input_ids": torch.randint(0, 50, (3, 12)), "attention_mask": torch.ones(3, 12, dtype=torch.int64)}
        batch["attention_mask"][0, 8:] = 0
    kept = batch.get("attention_mask", torch.ones(3, 1)).bool()

    def logits() -> torch.Tensor:
        with torch.no_grad():
            found = model(**batch).logits
        return found[kept] if found.dim() == 3 else found

    wanted = logits()
    ideal = {"units.analog.fidelity": "effective", "units.analog.adc.bits": 10, "units.analog.adc.thresholds": None,
             "units.analog.cell.device": {"kind": "ideal"}, "units.analog.input": {"bits": 12}}  # fmt: skip
    for changes, close in ((ideal, 0.97), ({"units.analog.fidelity": "effective"}, 0.8)):
        cim.convert_(model, cim.load_chip("nl-dpe").replace(changes))
        assert len(attention_layers(model)) == 2
        with cim.calibrate(model):
            torch.testing.assert_close(logits(), wanted)
        cim.program_(model, seed=0)
        one, again = logits(), logits()
        if "units.analog.adc.bits" in changes:
            assert torch.equal(one, again)
        assert float(torch.corrcoef(torch.stack([one.flatten(), wanted.flatten()]))[0, 1]) > close
        cim.restore_(model)
        assert torch.equal(logits(), wanted)


def test_gradients_pass_through() -> None:
    name, config = FAMILIES["bert"]
    model = getattr(transformers, name)(config).eval()
    ids = torch.randint(0, 50, (2, 6))
    cim.convert_(model, cim.load_chip("nl-dpe").replace({"units.analog.fidelity": "effective"}))
    with cim.calibrate(model), torch.no_grad():
        model(input_ids=ids)
    cim.program_(model.train(), seed=0)
    model(input_ids=ids, labels=torch.tensor([0, 1])).loss.backward()
    weight = model.bert.encoder.layer[0].attention.self.query.weight
    assert weight.grad is not None
    assert float(weight.grad.abs().max()) > 0
