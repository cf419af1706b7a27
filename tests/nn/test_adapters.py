"""PEFT's adapters on a hybrid chip: base weights stay in their cells, adapters come and go."""

import copy

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import cimphony as cim
from cimphony.errors import CapacityError, ChipError, DataError, StateError
from cimphony.nn import AnalogLayer, analog_layers, digital_layers

peft = pytest.importorskip("peft")

CHIP = cim.load_chip("hybrid-rram-sram")
IDS = torch.arange(12).view(1, 12) % 7
BATCH = {"input_ids": IDS, "labels": IDS}


def base_model(kind: str = "llama") -> nn.Module:
    torch.manual_seed(0)
    if kind == "gpt2":
        return GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=32, n_head=2, vocab_size=40, n_positions=32)).eval()
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=40, num_key_value_heads=2, **sizes)).eval()


def adapted(kind: str = "llama", seed: int = 1, **options: object) -> nn.Module:
    """With an adapter whose B is not zero, as after training."""
    targets = ["c_attn", "c_proj"] if kind == "gpt2" else ["q_proj", "v_proj", "down_proj"]
    options = {"r": 4, "target_modules": targets, "fan_in_fan_out": kind == "gpt2", **options}
    model = peft.get_peft_model(base_model(kind), peft.LoraConfig(**options)).eval()
    fill(model, seed)
    return model


def fill(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name and parameter.requires_grad:
                parameter.normal_(std=0.2, generator=generator)


def train(model: nn.Module, steps: int = 3) -> None:
    optimiser = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-2)
    model.train()
    for _ in range(steps):
        optimiser.zero_grad()
        model(**BATCH).loss.backward()
        optimiser.step()
    model.eval()


def cells(model: nn.Module) -> dict[str, torch.Tensor]:
    """What the RRAM holds."""
    layers = analog_layers(model).items()
    return {name: one.tiles[0].programmed.weights for name, one in layers if one.tiles[0].unit_name == "rram"}


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_base_goes_to_rram_and_adapters_to_sram(kind: str) -> None:
    model = adapted(kind)
    digital = logits(model)
    cim.program_(cim.convert_(model, CHIP, exclude=["*lm_head"]), seed=0)
    units = {name: layer.tiles[0].unit_name for name, layer in analog_layers(model).items()}
    assert all(unit == ("sram" if ".lora_" in name else "rram") for name, unit in units.items())
    assert sum(unit == "sram" for unit in units.values()) == 2 * sum(".base_layer" in name for name in units)
    noisy = logits(model)
    quiet = CHIP.replace({"units.rram.cell.device": {"kind": "ideal"}})
    cim.program_(cim.convert_(cim.restore_(model), quiet, exclude=["*lm_head"]))
    assert (logits(model) - digital).norm() / digital.norm() < 0.06  # 8 bits of inputs and weights are what is left
    assert not torch.equal(logits(model), noisy)
    assert torch.equal(logits(cim.restore_(model)), digital)
    assert not any("merge" in vars(module) for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_rram_is_bit_identical_after_training_and_swapping(tmp_path) -> None:
    """Acceptance: one programmed chip, adapters trained, saved, loaded and swapped with PEFT's own tools."""
    model = adapted()
    cim.program_(cim.convert_(model, CHIP, exclude=["*lm_head"]), seed=7)
    written = {name: value.clone() for name, value in cells(model).items()}
    masters = {name: value.clone() for name, value in model.state_dict().items() if "lora_" not in name}

    def unchanged() -> bool:
        same = all(torch.equal(value, written[name]) for name, value in cells(model).items())
        return same and all(torch.equal(model.state_dict()[name], value) for name, value in masters.items())

    before = logits(model)
    train(model)
    assert unchanged()
    first = logits(model)
    assert not torch.equal(first, before)
    model.save_pretrained(tmp_path / "one")

    model.add_adapter("two", peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj", "down_proj"]))
    model.set_adapter("two")
    fill(model, 5)
    second = logits(model)
    assert all(isinstance(one, AnalogLayer) for name, one in model.named_modules() if name.endswith("lora_A.two"))
    assert not torch.equal(second, first)
    model.set_adapter("default")
    assert torch.equal(logits(model), first)
    model.load_adapter(tmp_path / "one", "three")
    model.set_adapter("three")
    assert torch.equal(logits(model), first)
    with torch.no_grad(), model.disable_adapter():
        bare = model(IDS).logits
    assert not torch.equal(bare, first)
    assert unchanged()

    fresh = peft.PeftModel.from_pretrained(base_model(), tmp_path / "one").eval()
    cim.program_(cim.convert_(fresh, CHIP, exclude=["*lm_head"]), seed=7)
    assert torch.equal(logits(fresh), first)


def test_new_contents_of_an_adapter_are_written_to_sram_at_once() -> None:
    model = adapted()
    cim.program_(cim.convert_(model, CHIP), seed=0)
    before = logits(model)
    state = {name: 2 * value for name, value in peft.get_peft_model_state_dict(model).items()}
    peft.set_peft_model_state_dict(model, state)
    assert not torch.equal(logits(model), before)
    with torch.no_grad():
        model.get_submodule("base_model.model.model.layers.0.mlp.up_proj").weight.mul_(2)
    with pytest.raises(StateError, match="changed after they were programmed"):  # RRAM is not rewritten behind a back
        logits(model)


def test_generate_puts_late_adapters_on_the_chip() -> None:
    model = cim.program_(cim.convert_(adapted(), CHIP), seed=0)
    model.add_adapter("late", peft.LoraConfig(r=2, target_modules=["q_proj"]))
    model.set_adapter("late")
    model.generate(input_ids=IDS, max_new_tokens=2, do_sample=False, pad_token_id=0)
    late = model.get_submodule("base_model.model.model.layers.0.self_attn.q_proj.lora_A.late")
    assert isinstance(late, AnalogLayer)
    assert late.tiles[0].programmed.seed == 0
    assert copy.deepcopy(model)(IDS).logits.shape == (1, 12, 40)


def test_merging_is_refused_with_the_reason() -> None:
    model = cim.program_(cim.convert_(adapted(), CHIP), seed=0)
    for merge in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(StateError, match="merging is refused: the base weights are programmed cells"):
            merge()
    digital = logits(cim.restore_(model))
    torch.testing.assert_close(logits(model.merge_and_unload()), digital, rtol=1e-4, atol=1e-5)
    merged = adapted()
    merged.merge_adapter()
    with pytest.raises(DataError, match="its adapter is merged"):
        cim.convert_(merged, CHIP)


def test_variants_that_need_the_base_weight_are_refused() -> None:
    with pytest.raises(DataError, match="DoraLinearVariant, which needs the base weight"):
        cim.convert_(adapted(use_dora=True), CHIP)


def test_heads_that_are_trained_with_the_adapter_are_adapters() -> None:
    model = adapted(modules_to_save=["lm_head"])
    cim.program_(cim.convert_(model, CHIP), seed=0)
    head = "base_model.model.lm_head"
    assert analog_layers(model)[f"{head}.modules_to_save.default"].tiles[0].unit_name == "sram"
    assert digital_layers(model)[f"{head}.original_module"] == "replaced by modules_to_save"
    assert logits(model).shape == (1, 12, 40)


def test_chips_without_a_unit_for_adapters_keep_them_beside_their_base() -> None:
    chip = cim.load_chip("ideal")
    model = cim.program_(cim.convert_(adapted(), chip), seed=0)
    assert {layer.tiles[0].unit_name for layer in analog_layers(model).values()} == {"analog"}
    digital = CHIP.replace({"units.gpu": cim.load_chip("gpu-a100").units["gpu"].model_dump(), "policy.adapter": "gpu"})
    model = cim.program_(cim.convert_(adapted(), digital), seed=0)
    assert not any(".lora_" in name for name in analog_layers(model))
    assert set(digital_layers(model).values()) == {"an adapter, exact on gpu"}


def test_redundancy_is_for_the_base_alone_and_capacity_for_both() -> None:
    model = cim.convert_(adapted(), CHIP.replace({"redundancy": {"*": 3}}))
    counts = {layer.tiles[0].unit_name: layer.tiles[0].redundancy for layer in analog_layers(model).values()}
    assert counts == {"rram": 3, "sram": 1}
    with pytest.raises(CapacityError, match="of sram"):
        cim.convert_(adapted(), CHIP.replace({"units.sram.count": {"array": 2}}), chips=1)
    with pytest.raises(ChipError, match=r"policy\.adapter = 'vector'"):
        CHIP.replace({"policy.adapter": "vector"})


def test_a_saved_model_comes_back(tmp_path) -> None:
    model = cim.program_(cim.convert_(adapted(), CHIP, exclude=["*lm_head"]), seed=3)
    cim.save(model, tmp_path)
    again = peft.PeftModel.from_pretrained(base_model(), tmp_path).eval()
    assert torch.equal(logits(cim.load_(again, tmp_path)), logits(model))
