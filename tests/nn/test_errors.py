"""Bad input and wrong order: one clear error each, never a traceback from deep inside, never a silent number."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

import cimphony as cim
from cimphony.nn.store import write_tensors


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))


HYFLEX = "hyflexpim"


def test_no_layer_to_convert() -> None:
    with pytest.raises(cim.DataError, match=r"ReLU has no layer to convert.*nn\.Linear"):
        cim.convert_(nn.ReLU(), cim.load_chip(HYFLEX))
    with pytest.raises(cim.DataError, match=r"Left out: 0 \(excluded\), 2"):
        cim.convert_(model(), cim.load_chip(HYFLEX), exclude=["*"])
    with pytest.raises(cim.DataError, match="lists of wildcards"):
        cim.convert_(model(), cim.load_chip(HYFLEX), exclude="0")


@pytest.mark.parametrize("field", ["include", "exclude"])
def test_a_pattern_that_matches_nothing(field: str) -> None:
    net = nn.Sequential()
    net.add_module("head", nn.Linear(8, 4))
    with pytest.raises(cim.DataError, match=rf"{field}='haed' matches no layer.*did you mean 'head'"):
        cim.convert_(net, cim.load_chip(HYFLEX), **{field: ["haed"]})
    assert isinstance(net.head, nn.Linear)


def test_converting_twice_and_restoring_too_early() -> None:
    net = cim.convert_(model(), cim.load_chip(HYFLEX))
    with pytest.raises(cim.StateError, match="converted already"):
        cim.convert_(net, cim.load_chip(HYFLEX))
    with pytest.raises(cim.StateError, match=r"restore_: the model is not converted"):
        cim.restore_(model())


def test_a_chip_without_crossbars() -> None:
    with pytest.raises(cim.DataError, match=r"not on a crossbar.*cim\.estimate"):
        cim.convert_(model(), cim.load_chip("gpu-h100"))


def test_wrong_order() -> None:
    with pytest.raises(cim.StateError, match="calibrate: the model is not converted"), cim.calibrate(model()):
        pass
    with pytest.raises(cim.StateError, match="program_: the model is not converted"):
        cim.program_(model())
    net = cim.convert_(model(), cim.load_chip(HYFLEX))
    with pytest.raises(cim.StateError, match=r"layer 0 holds no weights yet: run cim\.program_"):
        net(torch.ones(1, 8))
    with pytest.raises(cim.StateError, match="is not programmed"):
        cim.age_(net, seconds=1)
    static = cim.convert_(model(), cim.load_chip("pcm-256"))
    with pytest.raises(cim.StateError, match=r"layer 0 has learned no ranges.*calibrate"):
        cim.program_(static)


def test_a_failed_calibration_leaves_no_ranges() -> None:
    net = cim.convert_(model(), cim.load_chip("pcm-256"))
    with contextlib.suppress(KeyboardInterrupt), cim.calibrate(net):
        net(torch.ones(1, 8))
        raise KeyboardInterrupt
    with pytest.raises(cim.StateError, match="has learned no ranges"):
        cim.program_(net)


def test_a_layer_that_calibration_never_reached() -> None:
    net = cim.convert_(model(), cim.load_chip("pcm-256"))
    with cim.calibrate(net):
        net[0](torch.ones(1, 8))
    with pytest.raises(cim.StateError, match=r"layer 2 has learned no ranges.* or exclude it"):
        cim.program_(net)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_inf(bad: float) -> None:
    net = cim.convert_(model(), cim.load_chip(HYFLEX))
    cim.program_(net)
    inputs = torch.ones(2, 8)
    inputs[1, 3] = bad
    with pytest.raises(cim.DataError, match="layer 0: its inputs hold NaN or Inf"):
        net(inputs)
    with torch.no_grad():
        net[2].weight[0, 0] = bad
    with pytest.raises(cim.DataError, match="layer 2: its weights hold NaN or Inf"):
        cim.program_(net)


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, True])
def test_bad_seed(seed: object) -> None:
    net = cim.convert_(model(), cim.load_chip(HYFLEX))
    with pytest.raises(cim.DataError, match="integer from 0 to"):
        cim.program_(net, seed=seed)  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_bad_age(seconds: float) -> None:
    net = cim.program_(cim.convert_(model(), cim.load_chip(HYFLEX)))
    with pytest.raises(cim.DataError, match="finite number of seconds"):
        cim.age_(net, seconds=seconds)


def test_too_large_for_the_chip() -> None:
    chip = cim.load_chip(HYFLEX).replace({"units.analog.count": {"array": 2, "module": 1, "pu": 1}})
    with pytest.raises(cim.CapacityError, match=r"needs 32 arrays .* has 2, 30 too few\. 16 chips would do"):
        cim.convert_(nn.Sequential(nn.Linear(512, 125)), chip.replace({"units.analog.cell.slc_rate": 0.0}), chips=1)


def test_attention_that_reads_weights_itself_stays_digital() -> None:
    net = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    cim.program_(cim.convert_(net, cim.load_chip("ideal")))
    why = "MultiheadAttention: only linear layers and Conv2d go on a crossbar"
    assert cim.nn.digital_layers(net) == {"self_attn": why, "self_attn.out_proj": "used inside nn.MultiheadAttention"}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_torchs_encoder_asks_its_analog_layers() -> None:
    """In evaluation it reads the weights of its layers itself, and would never notice the chip."""
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    net = nn.TransformerEncoder(layer, 2).eval()
    inputs, padding = torch.randn(2, 5, 16), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    with torch.no_grad():
        digital = net(inputs), net(inputs, src_key_padding_mask=padding)[~padding]
        cim.program_(cim.convert_(net, cim.load_chip(HYFLEX)))
        assert not torch.allclose(net(inputs), digital[0], rtol=1e-3)
        assert not torch.allclose(net(inputs, src_key_padding_mask=padding)[~padding], digital[1], rtol=1e-3)
        cim.restore_(net)
        assert torch.equal(net(inputs), digital[0])
        assert torch.equal(net(inputs, src_key_padding_mask=padding)[~padding], digital[1])


def test_weights_of_other_layers_are_said_to_stay_digital() -> None:
    net = nn.ModuleDict({"memory": nn.LSTM(4, 8), "taps": nn.Conv1d(1, 2, 3), "head": nn.Linear(8, 2)})
    cim.convert_(net, cim.load_chip("ideal"))
    assert set(cim.nn.digital_layers(net)) == {"memory", "taps"}
    with pytest.raises(cim.DataError, match=r"Left out: the model itself \(LSTM: only linear layers and Conv2d"):
        cim.convert_(nn.LSTM(4, 8), cim.load_chip("ideal"))


@pytest.mark.parametrize("chip", ["pcm-256", "macro-wan-130nm", HYFLEX])
@pytest.mark.parametrize("inputs", [torch.ones(2, 9), torch.ones(2, 7), torch.ones(2, 8, dtype=torch.long)])
def test_inputs_that_do_not_fit(chip: str, inputs: torch.Tensor) -> None:
    net = cim.convert_(model(), cim.load_chip(chip))
    with cim.calibrate(net):
        net(torch.ones(2, 8))
    cim.program_(net)
    with pytest.raises(cim.DataError, match=r"layer 0: its inputs are .* it takes floating point with 8 features"):
        net(inputs)


def test_an_image_with_other_channels() -> None:
    net = cim.program_(cim.convert_(nn.Sequential(nn.Conv2d(4, 2, 3)), cim.load_chip(HYFLEX)))
    with pytest.raises(cim.DataError, match="4 features at position 1"):
        net(torch.ones(1, 3, 8, 8))


def test_weights_without_values() -> None:
    net = cim.convert_(nn.Linear(4, 4, device="meta"), cim.load_chip(HYFLEX))
    with pytest.raises(cim.DataError, match="meta device"):
        cim.program_(net)


def test_a_name_is_no_chip() -> None:
    with pytest.raises(cim.ChipError, match="chip = 'hyflexpim' is a str"):
        cim.convert_(model(), "hyflexpim")  # type: ignore[arg-type]
    with pytest.raises(cim.ChipError, match="chip = 'hyflexpim' is a str"):
        cim.estimate(cim.trace("demo"), "hyflexpim")  # type: ignore[arg-type]


def test_a_compiled_model_gives_the_same_bits() -> None:
    net = cim.program_(cim.convert_(model(), cim.load_chip(HYFLEX)))
    inputs = torch.randn(3, 8)
    with torch.no_grad():
        assert torch.equal(torch.compile(net, backend="eager")(inputs), net(inputs))


def test_zero_tokens_and_zero_inputs() -> None:
    net = cim.program_(cim.convert_(model(), cim.load_chip(HYFLEX)))
    assert net(torch.empty(0, 8)).shape == (0, 2)
    assert torch.isfinite(net(torch.zeros(3, 8))).all()
    net = cim.program_(cim.convert_(nn.Sequential(nn.Conv2d(4, 6, 3)), cim.load_chip(HYFLEX)))
    assert net(torch.empty(0, 4, 8, 8)).shape == (0, 6, 6, 6)


def _fused(net: nn.Sequential) -> nn.Module:
    return torch.nn.utils.fuse_conv_bn_eval(net[0], net[1])


def _replaced(net: nn.Sequential) -> nn.Module:
    net[0].weight.data = torch.zeros_like(net[0].weight)
    return net


@pytest.mark.parametrize("change", [_fused, _replaced])
def test_weights_that_others_put_in_place_are_seen(change: Callable[[nn.Sequential], nn.Module]) -> None:
    """torch counts no change where a tool gives a layer, or its copy, another tensor."""
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2)).eval()
    net[1].running_var.fill_(4.0)
    cim.program_(cim.convert_(net, cim.load_chip(HYFLEX)))
    with pytest.raises(cim.StateError, match="changed after they were programmed"):
        change(net)(torch.ones(1, 3, 5, 5))


def test_graphs_of_a_chip_are_refused() -> None:
    """A trace would hold a buffer that a compiled kernel filled once."""
    net, inputs = cim.program_(cim.convert_(model(), cim.load_chip(HYFLEX))), torch.ones(2, 8)
    with pytest.raises(cim.StateError, match="cannot be traced, exported or transformed"):
        torch.export.export(net, (inputs,))
    with pytest.raises(cim.StateError, match="cannot be traced, exported or transformed"):
        torch.func.grad(lambda x: net(x).sum())(inputs)


def test_why_a_layer_stays_digital() -> None:
    net = nn.Sequential(nn.Linear(8, 4), nn.utils.parametrizations.orthogonal(nn.Linear(4, 4)), nn.LazyLinear(2))
    net.add_module("waves", nn.Linear(2, 2, dtype=torch.complex64))
    why = cim.nn.digital_layers(cim.convert_(net, cim.load_chip(HYFLEX)))
    assert "remove_parametrizations" in why["1"]
    assert "run a batch first" in why["2"]
    assert why["waves"] == "complex weights"


def test_a_seed_of_numpy() -> None:
    net = cim.program_(cim.convert_(model(), cim.load_chip(HYFLEX)), seed=np.int64(3))  # type: ignore[arg-type]
    assert type(cim.nn.summary_rows(net)[0]["seed"]) is int


def test_the_summary_says_what_is_applied() -> None:
    net = cim.convert_(model(), cim.load_chip(HYFLEX), exclude=["2"])
    cim.age_(cim.program_(net, seed=3), seconds=60)
    rows = {row["layer"]: row for row in cim.nn.summary_rows(net)}
    assert rows["2"] == {"layer": "2", "runs_on": "digital", "why": "excluded"}
    assert (rows["0"]["seed"], rows["0"]["age"], rows["0"]["fidelity"]) == (3, 60.0, "exact")
    parts = {part["mode"]: part for part in rows["0"]["parts"]}
    assert parts["slc"]["adc_codes"] == [0, 63]
    assert parts["mlc"]["adc_codes"] == [0, 127]
    assert parts["mlc"]["device"] == {"kind": "gaussian", "multiplicative": 0.025, "additive": 0.0, "read": 0.0}
    assert parts["slc"]["columns"] + parts["mlc"]["columns"] == 4
    assert "excluded" in str(cim.summary(net))


def test_calibration_does_not_depend_on_how_batches_are_cut() -> None:
    """A large batch and many small ones teach converters about the same range, the largest input included."""

    def ranges(size: int) -> float:
        layer = nn.Linear(64, 16)
        layer.weight.data = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
        inputs = torch.randn(4096, 64, generator=torch.Generator().manual_seed(1))
        inputs[1234] *= 3
        net = cim.convert_(nn.Sequential(layer), cim.load_chip("pcm-256"))
        with cim.calibrate(net), torch.no_grad():
            for part in inputs.split(size):
                net(part)
        return layer.tiles[0].sum_range["mlc"]

    assert ranges(4096) == ranges(64) == ranges(1000)


def test_a_model_made_in_inference_mode() -> None:
    with torch.inference_mode():
        net = cim.program_(cim.convert_(model(), cim.load_chip(HYFLEX)))
        assert net(torch.ones(2, 8)).shape == (2, 2)
        cim.restore_(net)


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One error, and what was there before stays."""
    net = cim.program_(cim.convert_(model(), cim.load_chip(HYFLEX)))
    (tmp_path / "file").touch()
    with pytest.raises(cim.DataError, match=r"cannot be written: Not a directory; choose another folder"):
        cim.save(net, tmp_path / "file" / "model")
    write_tensors({"x": torch.ones(2)}, tmp_path / "kept.safetensors", "checkpoint")

    def full(tensors: object, path: Path, metadata: object) -> None:
        path.write_text("half")
        raise SafetensorError("No space left on device")

    monkeypatch.setattr("cimphony.nn.store.save_file", full)
    with pytest.raises(cim.DataError, match=r"checkpoint '.*kept.safetensors' cannot be written: No space left"):
        write_tensors({"x": torch.zeros(2)}, tmp_path / "kept.safetensors", "checkpoint")
    assert torch.equal(load_file(tmp_path / "kept.safetensors")["x"], torch.ones(2))
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file", "kept.safetensors"]
