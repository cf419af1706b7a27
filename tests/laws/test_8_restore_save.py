"""Law 8: restore is bit-exact, save and load are equal, chips survive YAML, weights never change the chip."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import cimphony as cim
from tests.conftest import DEVICES


class Net(nn.Module):
    """Convolution, linear, a tied pair and a layer that no call reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, groups=3)
        self.first = nn.Linear(6, 12)
        self.second = nn.Linear(12, 12)
        self.tied = nn.Linear(12, 12)
        self.tied.weight = self.second.weight

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.first(self.conv(images).mean(dim=(2, 3)))
        return self.tied(self.second(torch.relu(hidden)))


def images() -> torch.Tensor:
    return torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["ideal", "hyflexpim", "pcm-256", "rram-neurram"])
def test_convert_then_restore_is_bit_exact(name: str) -> None:
    model = Net()
    digital, before = model(images()), copy.deepcopy(model.state_dict())
    kinds = {path: type(module) for path, module in model.named_modules()}
    cim.convert_(model, cim.load_chip(name))
    assert list(model.state_dict()) == list(before)  # no hardware settings among the weights
    with cim.calibrate(model):
        assert torch.equal(model(images()), digital)  # calibration computes digitally
    cim.program_(model, seed=2)
    model(images())
    cim.restore_(model)
    assert {path: type(module) for path, module in model.named_modules()} == kinds
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(model(images()), digital)
    assert model.tied.weight is model.second.weight
    assert not any("tiles" in module.__dict__ or "_written" in module.__dict__ for module in model.modules())


@pytest.mark.parametrize("age", [0.0, 3600.0])
@pytest.mark.parametrize("name", ["hyflexpim", "pcm-256"])
def test_save_then_load_is_equal(tmp_path: Path, name: str, age: float) -> None:
    model = Net().eval()
    cim.convert_(model, cim.load_chip(name), exclude=["first"])
    with cim.calibrate(model):
        model(images())
    cim.program_(model, seed=4)
    cim.age_(model, seconds=age)
    cim.save(model, tmp_path)
    twin = Net().eval()
    cim.load_(twin, tmp_path)
    assert torch.equal(model(images()), twin(images()))
    assert str(cim.summary(model)) == str(cim.summary(twin))
    assert {file.suffix for file in tmp_path.iterdir()} == {".yaml", ".json", ".safetensors"}


def test_a_layer_alone_is_a_model(tmp_path: Path) -> None:
    model, inputs = nn.Linear(8, 4), torch.randn(3, 8)
    cim.convert_(model, cim.load_chip("hyflexpim"))
    with cim.calibrate(model):
        model(inputs)
    cim.program_(model, seed=1)
    cim.save(model, tmp_path)
    assert torch.equal(cim.load_(nn.Linear(8, 4), tmp_path)(inputs), model(inputs))


def test_loading_weights_never_changes_the_chip(tmp_path: Path) -> None:
    model = Net().eval()
    cim.convert_(model, cim.load_chip("hyflexpim"))
    chip = model.conv.tiles[0].chip
    model.load_state_dict({key: value + 1 for key, value in model.state_dict().items()})
    assert model.conv.tiles[0].chip is chip
    with pytest.raises(cim.StateError, match="holds no weights yet"):
        model(images())


@pytest.mark.parametrize("name", cim.chip_names())
def test_chip_survives_yaml(tmp_path: Path, name: str) -> None:
    chip = cim.load_chip(name)
    path = tmp_path / "chip.yaml"
    path.write_text(chip.to_yaml(), encoding="utf-8")
    assert cim.load_chip(path) == chip


@pytest.mark.parametrize("device", DEVICES)
def test_changed_chip_survives_yaml(tmp_path: Path, device: str) -> None:
    chip = cim.load_chip("hyflexpim").replace({"units.analog.cell.device": DEVICES[device], "name": "mine"})
    path = tmp_path / "mine.yaml"
    path.write_text(chip.to_yaml(), encoding="utf-8")
    assert cim.load_chip(path) == chip


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    model = Net()
    cim.save(cim.program_(cim.convert_(model, cim.load_chip("hyflexpim"))), tmp_path)
    with pytest.raises(cim.DataError, match="weights of another model"):
        cim.load_(nn.Sequential(nn.Linear(3, 3)), tmp_path)


def test_a_folder_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(cim.DataError, match=r"holds no chip\.yaml"):
        cim.load_(Net(), tmp_path)


def test_other_weights_of_the_same_shape_are_refused(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=16, n_positions=8, n_embd=8, n_head=1, n_layer=1)
    model = GPT2LMHeadModel(config)
    cim.save(cim.program_(cim.convert_(model, cim.load_chip("hyflexpim"))), tmp_path)
    with pytest.raises(cim.DataError, match=r"other weights than this model's.*from_pretrained"):
        cim.load_(GPT2LMHeadModel(config), tmp_path)
