"""HaLoRA: plain LoRA where noise and mu are off, cells untouched, the regulariser's bound, trainer, ablation."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

import cimphony as cim
from cimphony.errors import DataError, StateError
from cimphony.methods.halora import (
    VARIANTS,
    HaloraCallback,
    ablation,
    factors,
    fit_,
    redraw_,
    regulariser,
    training_seed,
)
from cimphony.nn import analog_layers
from cimphony.record import read_record

peft = pytest.importorskip("peft")

CHIP = cim.load_chip("hybrid-rram-sram")
QUIET = CHIP.without("programming")
BASE = ["*base_layer"]


def adapted(dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=24, **sizes))
    options = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj", "down_proj"], lora_dropout=dropout)
    return peft.get_peft_model(model, options).eval()


def batch(step: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(0, 24, (2, 8), generator=torch.Generator().manual_seed(step))
    return {"input_ids": ids, "labels": ids}


def plain_lora(model: nn.Module, steps: int) -> list[float]:
    """The loop as a user of PEFT writes it."""
    optimiser = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-2, weight_decay=0)
    losses = []
    model.train()
    for step in range(steps):
        optimiser.zero_grad()
        loss = model(**batch(step)).loss
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    model.eval()
    return losses


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def distance(one: nn.Module, other: nn.Module) -> float:
    return max(float((value - state(other)[name]).abs().max()) for name, value in state(one).items())


def rram(model: nn.Module) -> dict[str, torch.Tensor]:
    layers = analog_layers(model).items()
    return {name: one.tiles[0].programmed.weights for name, one in layers if one.tiles[0].unit_name == "rram"}


@pytest.mark.parametrize("where", ["digital", "chip, noise=False", "chip without noise"])
def test_without_noise_and_regulariser_it_is_plain_lora_step_for_step(where: str) -> None:
    """Acceptance: equal bit for bit, dropout included."""
    ours, theirs = adapted(dropout=0.2), adapted(dropout=0.2)
    if where != "digital":
        for model in (ours, theirs):
            cim.program_(cim.convert_(model, CHIP if "False" in where else QUIET), seed=4)
    torch.manual_seed(1)
    losses = fit_(ours, batch, 4, lr=1e-2, mu=0.0, noise=where == "chip without noise", clip=None)
    torch.manual_seed(1)
    assert plain_lora(theirs, 4) == losses
    assert same(state(ours), state(theirs))
    assert len({*losses}) == 4


@pytest.mark.parametrize("mu", [0.0, 1e-2])
def test_cells_are_bit_identical_after_training_though_every_step_had_others(mu: float) -> None:
    model = cim.program_(cim.convert_(adapted(), CHIP), seed=7)
    cells, digital = rram(model), {name: one for name, one in state(model).items() if "lora_" not in name}
    kept = {name: one.clone() for name, one in cells.items()}
    seen: list[dict[str, torch.Tensor]] = []

    def loss(model: nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        seen.append({name: one.clone() for name, one in rram(model).items()})
        return model(**inputs).loss

    before = {name: one for name, one in state(model).items() if "lora_" in name}
    fit_(model, batch, 3, mu=mu, loss=loss)
    after = state(model)
    assert same(rram(model), kept)
    assert same({name: after[name] for name in digital}, digital)
    assert all(not torch.equal(after[name], one) for name, one in before.items() if "lora_B" in name)
    assert not any(torch.equal(seen[0][name], seen[1][name]) for name in kept)
    assert not any(torch.equal(seen[0][name], kept[name]) for name in kept)
    redraw_(model, 0, 2)
    assert same(rram(model), seen[2])  # a step's chip is a function of seed and step
    with pytest.raises(StateError, match="merging is refused"):
        model.merge_adapter()


def test_chips_of_training_are_never_those_of_evaluation() -> None:
    drawn = {training_seed(seed, step) for seed in range(20) for step in range(200)}
    assert len(drawn) == 4000
    assert all(2**62 <= one < 2**63 for one in drawn)


def test_the_regulariser_is_the_sum_of_norms_and_bounds_the_step() -> None:
    model = adapted()
    with torch.no_grad():
        for _, b in factors(model):
            b.normal_(generator=torch.Generator().manual_seed(0))
    pairs = [(a.detach().double(), b.detach().double()) for a, b in factors(model)]
    for norm, order in (("spectral", 2), ("frobenius", "fro")):
        by_hand = sum(
            torch.linalg.matrix_norm(a @ a.T, ord=order) + torch.linalg.matrix_norm(b.T @ b, ord=order)
            for a, b in pairs
        )
        assert float(regulariser(model, norm).detach()) == pytest.approx(float(by_hand), rel=1e-5)
    a, b = pairs[0]
    gradient = torch.randn(b.shape[0], a.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    step = b @ b.T @ gradient + gradient @ a.T @ a  # of B A at rate 1, to first order
    bound = torch.linalg.matrix_norm(a @ a.T, ord=2) + torch.linalg.matrix_norm(b.T @ b, ord=2)
    assert float(torch.linalg.matrix_norm(step, ord=2)) <= float(bound * torch.linalg.matrix_norm(gradient, ord=2))
    with pytest.raises(DataError, match="norm = 'nuclear'"):
        regulariser(model, "nuclear")  # type: ignore[arg-type]


def test_a_large_mu_shrinks_the_adapter() -> None:
    sizes = []
    for mu in (0.0, 1.0):
        model = cim.program_(cim.convert_(adapted(), CHIP), seed=0)
        fit_(model, batch, 10, lr=1e-2, mu=mu)
        sizes.append(float(regulariser(model).detach()))
    assert sizes[1] < 0.9 * sizes[0]


def trained_by_trainer(model: nn.Module, folder: object, *callbacks: TrainerCallback, steps: int = 3) -> nn.Module:
    """Three steps of HF's Trainer, plain AdamW at a constant rate without clipping."""
    rows = [{key: value[row] for key, value in batch(step).items()} for step in range(steps) for row in range(2)]
    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=2, learning_rate=1e-2,
        lr_scheduler_type="constant", weight_decay=0.0, max_grad_norm=0.0, report_to=[], use_cpu=True, seed=3,
        save_strategy="no", logging_strategy="no", disable_tqdm=True, train_sampling_strategy="sequential",
        dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = Trainer(model, args=arguments, train_dataset=rows, callbacks=[*callbacks])
    trainer.train()
    return model.eval()


def test_the_callback_is_plain_lora_where_noise_and_mu_are_off(tmp_path) -> None:
    plain = trained_by_trainer(adapted(dropout=0.2), tmp_path)
    assert same(
        state(plain), state(trained_by_trainer(adapted(dropout=0.2), tmp_path, HaloraCallback(noise=False, mu=0)))
    )


@pytest.mark.parametrize("noise", [False, True])
def test_the_callback_does_what_the_function_does(tmp_path, noise: bool) -> None:
    by_trainer, by_hand = (cim.program_(cim.convert_(adapted(), CHIP), seed=2) for _ in range(2))
    cells = {name: one.clone() for name, one in rram(by_trainer).items()}
    trained_by_trainer(by_trainer, tmp_path, HaloraCallback(noise=noise, mu=0.1, seed=5))
    fit_(by_hand, batch, 3, lr=1e-2, noise=noise, mu=0.1, seed=5, clip=None)
    assert distance(by_trainer, by_hand) < 1e-4  # of steps of 1e-2: gradients are summed in another order
    assert same(rram(by_trainer), cells)
    without = cim.program_(cim.convert_(adapted(), CHIP), seed=2)
    fit_(without, batch, 3, lr=1e-2, noise=noise, mu=0.0, seed=5, clip=None)
    assert distance(without, by_hand) > 1e-3


def test_what_cannot_be_trained_says_so() -> None:
    with pytest.raises(StateError, match="convert_"):
        fit_(adapted(), batch, 1)
    with pytest.raises(DataError, match="has no LoRA layers"):
        regulariser(nn.Linear(2, 2))
    model = cim.program_(cim.convert_(adapted(), CHIP), seed=0)
    with pytest.raises(DataError, match="the model gives no loss"):
        fit_(model, lambda step: {"input_ids": batch(step)["input_ids"]}, 1)
    with pytest.raises(DataError, match="the loss of step 0 is nan"):
        fit_(model, batch, 1, loss=lambda model, inputs: model(**inputs).loss * float("nan"))
    assert all(one.grad is None for one in model.parameters())
    assert not model.training


def perplexity(model: nn.Module) -> float:
    with torch.no_grad():
        return float(model(**batch(99)).loss.exp())


def run_ablation(path: object, metric: Callable[[nn.Module], float] = perplexity, **more: object) -> cim.record.Record:
    options = {"levels": {"quiet": QUIET, "noisy": CHIP}, "seeds": [0, 1], "mu": 1e-2, "lr": 1e-2, "include": BASE}
    return ablation(adapted, CHIP, batch, 2, metric, record_path=path, **{**options, **more})


def test_the_ablation_has_four_variants_on_the_same_chips_and_goes_on_where_it_stopped(tmp_path) -> None:
    whole = run_ablation(tmp_path / "whole.json")
    rows = {(row["variant"], row["level"]): row for row in whole.results["rows"]}
    assert [*dict.fromkeys(name for name, _ in rows)] == [*VARIANTS]
    assert all(row["chips"] == (1 if level == "quiet" else 2) for (_, level), row in rows.items())
    assert rows["LoRA", "noisy"]["min"] <= rows["LoRA", "noisy"]["mean"] <= rows["LoRA", "noisy"]["max"]
    losses = whole.results["losses"]
    assert losses["LoRA"] == losses["regulariser"][:1] + losses["LoRA"][1:]  # the first step sees one adapter
    assert losses["noise"][0] != losses["LoRA"][0]
    assert len({tuple(one) for one in losses.values()}) == 4

    left = iter(range(3))

    def stopped(model: nn.Module) -> float:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return perplexity(model)

    with pytest.raises(KeyboardInterrupt):
        run_ablation(tmp_path / "part.json", stopped)
    assert not read_record(tmp_path / "part.json").complete
    again = run_ablation(tmp_path / "part.json")
    assert again.results == whole.results
    assert again.complete
    with pytest.raises(DataError, match="is of another run"):
        run_ablation(tmp_path / "part.json", mu=0.5)


def test_the_ablation_of_one_variant_is_that_of_all(tmp_path) -> None:
    alone = run_ablation(None, variants=["HaLoRA"])
    beside = run_ablation(None, variants=["noise", "HaLoRA"])
    assert alone.results["rows"] == [row for row in beside.results["rows"] if row["variant"] == "HaLoRA"]
