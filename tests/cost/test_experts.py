"""Mixtures of experts: what is counted, stored, read and fetched, against formulas and draws by hand."""

import pytest
import torch
from transformers import GptOssConfig, MixtralConfig, OlmoeConfig, Qwen3MoeConfig

import cimphony as cim
from cimphony.errors import DataError
from cimphony.mapping import place
from cimphony.workload import Operation, Workload

SIZES = {
    "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2
}  # fmt: skip
CONFIGS = {
    "mixtral": (MixtralConfig(**SIZES, intermediate_size=48, num_local_experts=6, num_experts_per_tok=2), 6, 2, 48),
    "qwen3": (
        Qwen3MoeConfig(**SIZES, head_dim=8, moe_intermediate_size=24, num_experts=9, num_experts_per_tok=4), 9, 4, 24
    ),
    "olmoe": (OlmoeConfig(**SIZES, intermediate_size=16, num_experts=8, num_experts_per_tok=3), 8, 3, 16),
    "gpt-oss": (
        GptOssConfig(**SIZES, head_dim=8, intermediate_size=40, num_local_experts=4, num_experts_per_tok=1), 4, 1, 40
    ),
}  # fmt: skip


def experts(work: Workload, phase: str) -> list[Operation]:
    return [one for one in work.select("static_matmul", phase) if one.active]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CONFIGS)
def test_products_and_weights_are_counted_as_by_hand(name: str) -> None:
    config, total, used, inner = CONFIGS[name]
    work = cim.trace(config, prompt=5, new_tokens=2, batch=3)
    weights, tokens = 3 * 32 * inner, 5 * 3
    for phase, rows in (("prefill", tokens), ("decode", 2 * 3)):
        assert sum(one.macs for one in experts(work, phase)) == 2 * rows * used * weights
        stored = {one.layer: one.weights for one in experts(work, phase)}
        assert sum(stored.values()) == 2 * total * weights
    first = [(one.layer, one.m, one.k, one.n, one.groups, one.active) for one in experts(work, "prefill")[:2]]
    assert first == [
        ("model.layers.0.mlp.experts.gate_up_proj", tokens, 32, 2 * inner, total, used),
        ("model.layers.0.mlp.experts.down_proj", tokens, inner, 32, total, used),
    ]
    activation = sum(one.elements for one in work.select("activation", "prefill"))
    assert activation == 2 * tokens * used * inner
    assert work.active_parameters == work.parameters - 2 * (total - used) * weights
    assert Workload.from_json(work.to_json()) == work


def test_mixtral_has_the_published_numbers_of_parameters() -> None:
    work = cim.trace("mixtral-8x7b", prompt=1)
    assert work.parameters == pytest.approx(46.7e9, rel=1e-3)  # Jiang et al. 2024, arXiv:2401.04088: 47 B, 13 B active
    assert work.active_parameters == pytest.approx(12.9e9, rel=2e-3)
    assert place(work, cim.load_chip("isaac")).arrays * 128 * 128 >= 46.5e9 * 16 / 2  # all of them in 2-bit cells
    said = cim.estimate(work, cim.load_chip("gpu-h100")).assumptions
    assert any("2 of 8 (12.9 G of 46.7 G parameters), all equally likely" in line for line in said)


def layer(m: int, groups: int, active: int | None, repeat: int = 1) -> Workload:
    made = Operation(layer="e", kind="static_matmul", m=m, k=100, n=40, groups=groups, active=active, repeat=repeat)
    return Workload(model="layer", operations=[made], parameters=4000 * groups)


@pytest.mark.parametrize("name", ["hyflexpim", "isaac", "nl-dpe", "pcm-256"])
def test_a_token_pays_for_its_experts_and_all_of_them_take_cells(name: str) -> None:
    chip = cim.load_chip(name)
    mixture, dense = layer(12, 8, 2), layer(12, 2, None)  # the same reads as two matrices that every token takes
    assert place(mixture, chip).blocks[0].arrays == 4 * place(dense, chip).blocks[0].arrays
    one_copy = chip.replace({f"units.{chip.policy['static_matmul']}.schedule.copies": "one"})
    one, two = cim.estimate(mixture, one_copy), cim.estimate(dense, one_copy)
    links = ("link.pu", "link.chip", "link.bus")  # a mixture hands on one sum, two matrices two results
    spent = [sum(entry.energy for entry in report.entries if entry.component not in links) for report in (one, two)]
    assert spent[0] == pytest.approx(spent[1], rel=1e-12)
    assert one.interval == pytest.approx(two.interval, rel=1e-12)  # beside each other, token by token


def test_a_processor_reads_the_experts_that_are_hit() -> None:
    chip = cim.load_chip("gpu-h100")
    unit = chip.unit_for("static_matmul")
    for tokens, used, total in ((1, 2, 8), (4, 8, 128), (64, 8, 64)):
        operation = layer(tokens, total, used).operations[0]
        generator = torch.Generator().manual_seed(tokens)
        draws = torch.rand(1000, tokens, total, generator=generator).argsort(dim=-1)[..., :used]
        hit = torch.zeros(1000, total).scatter_(1, draws.flatten(1), 1.0).sum(dim=1)
        spread = float(hit.std()) / 1000**0.5
        assert operation.hit == pytest.approx(float(hit.mean()), abs=4 * spread + 1e-9)
        bytes_read = (4000 * operation.hit + tokens * used * 140) * unit.bits / 8
        seconds = max(
            bytes_read / (unit.bandwidth * unit.memory_utilisation),
            2 * operation.macs / (unit.peak * unit.compute_utilisation),
        )
        assert cim.estimate(layer(tokens, total, used), chip).latency == pytest.approx(seconds, rel=1e-9)


def test_a_row_cannot_go_through_more_experts_than_there_are() -> None:
    with pytest.raises(ValueError, match="active = 9 is more than groups = 8"):
        layer(1, 8, 9)
    with pytest.raises(DataError, match="active = 9"):
        Workload.from_json(layer(1, 8, 8).to_json().replace('"active": 8', '"active": 9'))
