"""Mixtures of experts on crossbars: every expert has layers of its own, and the stacked weights stay as they are."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    GptOssConfig,
    MixtralConfig,
    PretrainedConfig,
    Qwen2MoeConfig,
    Qwen3MoeConfig,
)

import cimphony as cim
from cimphony.errors import DataError
from cimphony.mapping import place
from cimphony.nn import analog_layers, digital_layers
from cimphony.nn.experts import split_experts

SIZES = {
    "vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 8, "max_position_embeddings": 64, "moe_intermediate_size": 24, "intermediate_size": 24,
}  # fmt: skip
CONFIGS: dict[str, PretrainedConfig] = {
    "mixtral": MixtralConfig(**SIZES, num_local_experts=5, num_experts_per_tok=2),
    "qwen3": Qwen3MoeConfig(**SIZES, num_experts=6, num_experts_per_tok=3),
    "qwen2": Qwen2MoeConfig(**SIZES, num_experts=4, num_experts_per_tok=2, shared_expert_intermediate_size=16),
    "gpt-oss": GptOssConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2),
}


def tokens(rows: int = 2, length: int = 7) -> torch.Tensor:
    return torch.randint(0, 40, (rows, length), generator=torch.Generator().manual_seed(3))


def tiny(name: str = "qwen3") -> nn.Module:
    model = AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[name])).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases, and routers that choose
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def on_chip(model: nn.Module, chip: cim.Chip, seed: int = 0, **options: object) -> nn.Module:
    cim.convert_(model, chip, **options)  # type: ignore[arg-type]
    with cim.calibrate(model):
        model(tokens())
    return cim.program_(model, seed=seed)


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(tokens()).logits


@pytest.mark.parametrize("name", CONFIGS)
def test_the_ideal_chip_is_the_digital_model_and_restoring_is_bit_exact(name: str) -> None:
    model = tiny(name)
    digital, before = logits(model), copy.deepcopy(model.state_dict())
    kinds = {path: type(module) for path, module in model.named_modules()}
    on_chip(model, cim.load_chip("ideal"))
    experts = [path for path in analog_layers(model) if ".experts." in path]
    config = CONFIGS[name]
    assert len(experts) == 2 * 2 * (getattr(config, "num_experts", 0) or config.num_local_experts)
    assert "model.layers.1.mlp.experts.3.down_proj" in experts
    torch.testing.assert_close(logits(model), digital, rtol=1e-4, atol=1e-4)
    assert list(model.state_dict()) == list(before)
    cim.restore_(model)
    assert {path: type(module) for path, module in model.named_modules()} == kinds
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(logits(model), digital)


@pytest.mark.parametrize("chip", ["hyflexpim", "pcm-256-gain-cell"])
def test_one_seed_is_one_chip_and_experts_have_noise_of_their_own(chip: str) -> None:
    model, twin = tiny(), tiny()
    twin.load_state_dict(model.state_dict())
    stack = model.model.layers[0].mlp.experts
    with torch.no_grad():
        stack.down_proj[1] = stack.down_proj[0]
        twin.load_state_dict(model.state_dict())
    described = cim.load_chip(chip)
    if chip == "hyflexpim":
        described = described.replace({"units.analog.cell.device": {"kind": "gaussian", "additive": 0.05}})
    first = logits(on_chip(model, described))
    assert torch.equal(first, logits(on_chip(twin, described)))
    one, two = (stack.get_submodule(f"{number}.down_proj").tiles[0].programmed.weights for number in (0, 1))
    assert not torch.equal(one, two)
    cim.program_(model, seed=0)
    halves = [model(tokens()[row : row + 1]).logits for row in (0, 1)]
    torch.testing.assert_close(torch.cat(halves), first, rtol=1e-3, atol=1e-3)
    cim.program_(model, seed=1)
    assert not torch.equal(logits(model), first)
    cim.age_(cim.program_(model, seed=0), seconds=3600)
    assert torch.equal(logits(model), first) != chip.startswith("pcm")  # which drifts


def test_cost_and_numbers_count_the_same_cells() -> None:
    chip = cim.load_chip("hyflexpim").replace({"redundancy": {"*.experts.down_proj": 2}})
    model = on_chip(tiny("mixtral"), chip)
    work = cim.trace(model, prompt=7)
    counted = {
        name: layer.cells
        for block in place(work, chip).blocks
        for at, layer in enumerate(block.layers)
        for name in block.block.layers(next(one for one in block.block.operations if one.layer == layer.layer))
    }
    held = dict.fromkeys(counted, 0)
    for path, layer in analog_layers(model).items():
        stack, _, name = path.rpartition(".experts.")
        for programmed in (layer.tiles[0].programmed, *layer.tiles[0].programmed.others):
            cells = sum(torch.Size(one.shape).numel() for one in programmed.cells.values())
            held[f"{stack}.experts.{name.partition('.')[2]}" if stack else path] += cells
    routers = [name for name, cells in held.items() if not cells]
    assert routers == [name for name in digital_layers(model) if name in counted]
    assert all(name.endswith("mlp.gate") for name in routers)
    assert held == {name: 0 if name in routers else cells for name, cells in counted.items()}


def test_experts_are_chosen_by_name() -> None:
    model = cim.convert_(
        tiny(), cim.load_chip("pcm-256"), include=["*.experts.1.*", "*.o_proj"], exclude=["*.layers.1.*"]
    )
    assert sorted(analog_layers(model)) == [
        f"model.layers.0.mlp.experts.1.{name}" for name in ("down_proj", "gate_up_proj")
    ] + ["model.layers.0.self_attn.o_proj"]
    stayed = digital_layers(model)
    assert stayed["model.layers.0.mlp.experts.0.gate_up_proj"] == "not included"
    assert stayed["model.layers.1.mlp.experts"] == "not included"  # as a whole: one line, and its own code
    assert list(split_experts(model)) == ["model.layers.0.mlp.experts"]
    assert stayed["model.layers.0.mlp.gate"] == "Qwen3MoeTopKRouter: routing is exact"
    with cim.calibrate(model):
        model(tokens())
    cim.program_(model)
    assert "model.layers.0.mlp.experts.1.down_proj" in {row["layer"] for row in cim.summary(model).rows}
    with pytest.raises(DataError, match="its layers are named"):
        cim.convert_(fresh := tiny(), cim.load_chip("pcm-256"), exclude=["*.experts.77.*"])
    assert not split_experts(fresh)  # nothing is left half done
    with pytest.raises(DataError, match=r"redundancy: '\*.experts.1.\*' matches none"):
        cim.convert_(fresh, cim.load_chip("pcm-256").replace({"redundancy": {"*.experts.1.*": 2}}))


@pytest.mark.parametrize("chip", ["pcm-256", "nl-dpe"])
def test_experts_that_no_token_reached_take_the_widest_range_of_their_siblings(chip: str, tmp_path: Path) -> None:
    model = tiny("mixtral")
    cim.convert_(model, cim.load_chip(chip))
    with cim.calibrate(model):
        model(tokens(1, 1))  # two experts a layer
    for stack in split_experts(model).values():
        for name in ("gate_up_proj", "down_proj"):
            tiles = [one.tiles[0] for one in stack.linears(name)]  # type: ignore[union-attr]
            reached = [one for one in tiles if not one.borrowed]
            assert (len(reached), len(tiles)) == (2, 5)
            assert {one.input_range for one in tiles if one.borrowed} == {max(one.input_range for one in reached)}
            for mode in reached[0].sum_range:
                widest = max(one.sum_range[mode] for one in reached)
                assert {one.sum_range[mode] for one in tiles if one.borrowed} == {widest}
    cim.program_(model, seed=5)
    assert torch.isfinite(logits(model)).all()
    assert sum(row.get("borrowed", False) for row in cim.summary(model).rows) == 2 * 2 * 3
    assert "siblings" in str(cim.summary(model))
    cim.save(cim.program_(model, seed=5), tmp_path)
    twin = cim.load_(AutoModelForCausalLM.from_pretrained(tmp_path).eval(), tmp_path)
    assert torch.equal(logits(twin), logits(model))
    assert str(cim.summary(twin)) == str(cim.summary(model))


@pytest.mark.parametrize("name", ["qwen3", "gpt-oss"])
def test_gradients_training_and_copies(name: str) -> None:
    model, ideal = tiny(name), cim.load_chip("ideal")
    grown = {}
    for put in (False, True):
        if put:
            on_chip(model, ideal)
        model.zero_grad()
        model(tokens(), labels=tokens()).loss.backward()
        grown[put] = {key: one.grad.clone() for key, one in model.named_parameters() if one.grad is not None}
    assert grown[True].keys() == grown[False].keys()
    for key, gradient in grown[True].items():
        torch.testing.assert_close(gradient, grown[False][key], rtol=1e-3, atol=1e-5)
    twin = copy.deepcopy(model)
    assert torch.equal(logits(twin), logits(model))
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    twin.train()
    twin(tokens(), labels=tokens()).loss.backward()
    optimizer.step()
    twin(tokens())  # cells are written anew
    twin.eval()
    before = logits(model)
    trained = logits(cim.program_(twin))
    assert not torch.allclose(trained, before, atol=1e-3)
    torch.testing.assert_close(logits(cim.restore_(twin)), trained, rtol=1e-3, atol=1e-3)
    wide = copy.deepcopy(model).to(torch.float64)
    assert wide.model.layers[0].mlp.experts.get_submodule("0.down_proj").weight.dtype == torch.float64
    torch.testing.assert_close(logits(wide).float(), before, rtol=1e-3, atol=1e-3)
    gone = copy.deepcopy(model).to("meta")
    assert {one.tiles[0].programmed.scale.device.type for one in analog_layers(gone).values()} == {"meta"}


def test_adapters_of_stacked_weights_leave_them_digital() -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed")
    config = peft.LoraConfig(target_modules=["q_proj"], target_parameters=["mlp.experts.down_proj"], r=2)
    model = peft.get_peft_model(tiny(), config)
    on_chip(model, cim.load_chip("pcm-256"))
    assert not split_experts(model)
    assert any(name.endswith("self_attn.q_proj.lora_A.default") for name in analog_layers(model))
    stayed = {name.partition(".mlp.")[2]: why for name, why in digital_layers(model).items()}
    assert "Qwen3MoeExperts" in stayed["experts.base_layer"]
    assert "digital under it" in stayed["experts.lora_A.default"]
    assert torch.isfinite(logits(model)).all()
