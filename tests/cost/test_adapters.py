"""Adapters cost what they do on the unit where the numbers put them."""

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import cimphony as cim
from cimphony.cost import estimate
from cimphony.errors import CapacityError
from cimphony.mapping import place, settle
from cimphony.nn import analog_layers

peft = pytest.importorskip("peft")

CHIP = cim.load_chip("hybrid-rram-sram")
TARGETS = ["q_proj", "k_proj", "v_proj", "down_proj"]


def bare() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=40, **sizes))


def adapted(rank: int = 4) -> nn.Module:
    return peft.get_peft_model(bare(), peft.LoraConfig(r=rank, target_modules=TARGETS)).eval()


def energy(report: cim.CostReport, unit: str) -> float:
    """Of a unit, or of one of its parts [J]."""
    return sum(row["energy"] for row in report.by("component") if f"{row['component']}.".startswith(f"{unit}."))


def test_trace_and_numbers_send_the_same_layers_to_the_same_unit() -> None:
    model = adapted()
    work = cim.trace(model, prompt=8, new_tokens=3)
    cim.program_(cim.convert_(model, CHIP.replace({"units.rram.fidelity": "exact"})), seed=0)
    units = {name: layer.tiles[0].unit_name for name, layer in analog_layers(model).items()}
    kinds = {one.layer: one.kind for one in work.operations if one.weights}
    assert {name: CHIP.policy[kind] for name, kind in kinds.items()} == units
    assert sum(unit == "sram" for unit in units.values()) == 2 * 2 * len(TARGETS)
    placement = place(work, CHIP)
    for unit, placed, pair in (
        ("rram", placement, 2),
        ("sram", placement.adapters, 1),
    ):  # pairs are kept as differences
        programmed = [one.tiles[0].programmed for one in analog_layers(model).values() if units_of(one) == unit]
        held = pair * sum(part.conductance.numel() for one in programmed for part in one.cells.values())
        assert sum(one.cells * block.repetitions for block in placed.blocks for one in block.layers) == held
    assert cim.trace(model, prompt=8, new_tokens=3) == work  # a converted model is the same work


def units_of(layer: object) -> str:
    return layer.tiles[0].unit_name


def test_the_base_costs_what_it_costs_alone_and_adapters_pay_for_themselves() -> None:
    alone = estimate(cim.trace(bare(), prompt=8, new_tokens=3), CHIP)
    four, eight = (estimate(cim.trace(adapted(rank), prompt=8, new_tokens=3), CHIP) for rank in (4, 8))
    assert energy(four, "rram") == pytest.approx(energy(alone, "rram"))
    assert energy(alone, "sram") == 0
    spare = CHIP.replace({"units.sram.schedule.copies": "whole"})  # spare arrays without an adapter to copy
    assert estimate(cim.trace(bare(), prompt=8, new_tokens=3), spare).energy == alone.energy
    cells = [energy(report, "sram.cell") for report in (four, eight)]
    inputs = (8 + 3) * 8  # tokens, bits
    weights = 2 * sum(64 * 4 + 4 * 64 if name != "down_proj" else 96 * 4 + 4 * 64 for name in TARGETS)
    assert cells[0] == pytest.approx(inputs * weights * 8 * 0.1e-15)  # eight one-bit cells a weight
    assert cells[1] == pytest.approx(2 * cells[0])
    elementwise = sum(row["latency"] for row in four.by("operation") if row["operation"] == "elementwise")
    before = sum(row["latency"] for row in alone.by("operation") if row["operation"] == "elementwise")
    assert four.latency - alone.latency == pytest.approx(elementwise - before)  # SRAM is read while RRAM is
    assert any("cells of sram and run while their base layers do" in said for said in four.assumptions)


def test_slow_adapters_take_time() -> None:
    work = cim.trace(adapted(), prompt=8)
    slow = CHIP.replace({"units.sram.cycle": 1e-6})
    assert estimate(work, slow).latency > 2 * estimate(work, CHIP).latency
    assert estimate(work, slow).interval > estimate(work, CHIP).interval


def test_without_a_unit_of_their_own_they_are_static_products() -> None:
    work, chip = cim.trace(adapted(), prompt=8), cim.load_chip("pcm-256")
    static = work.model_copy(
        update={
            "operations": [
                one.model_copy(update={"kind": "static_matmul"}) if one.kind == "adapter" else one
                for one in work.operations
            ]
        }
    )
    assert settle(work, chip) == static
    assert place(work, chip) == place(static, chip)
    assert estimate(work, chip).energy == estimate(static, chip).energy
    assert settle(static, chip) is static


def test_a_gpu_may_run_them_and_capacity_is_checked() -> None:
    gpu = CHIP.replace({"units.gpu": cim.load_chip("gpu-a100").units["gpu"].model_dump(), "policy.adapter": "gpu"})
    report = estimate(cim.trace(adapted(), prompt=8), gpu)
    assert energy(report, "gpu") > 0
    assert energy(report, "sram") == 0
    small = CHIP.replace({"units.sram.count": {"array": 4}})
    with pytest.raises(CapacityError, match="for its adapters"):
        estimate(cim.trace(adapted(), prompt=8), small, chips=1)
    needed = 2 * len(TARGETS) * (1 + 4)  # arrays: A has 4 outputs of 8 cells, B 64
    assert place(cim.trace(adapted(), prompt=8), small).chips == needed / 4


def test_redundancy_is_for_the_base_alone() -> None:
    work = cim.trace(adapted(), prompt=8)
    once, thrice = (place(work, CHIP.replace({"redundancy": one})) for one in ({}, {"*": 3}))
    cells = [sum(one.cells * block.repetitions for block in placed.blocks for one in block.layers)
             for placed in (once, thrice)]  # fmt: skip
    assert cells[1] == 3 * cells[0]
    assert once.adapters == thrice.adapters
