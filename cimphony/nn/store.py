"""Save and load a converted model: weights and ranges as safetensors, the chip as YAML. Nothing is pickled.

The cells themselves are not stored: seed and age rebuild them, bit for bit.
"""

import errno
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cimphony.chip import Chip, load_chip
from cimphony.errors import DataError, StateError
from cimphony.nn.architectures import model_class
from cimphony.nn.attention import attention_layers
from cimphony.nn.calibration import Calibration, calibration_of, recalibrate_
from cimphony.nn.convert import age_, convert_, converted_layers, digital_layers, is_converted, program_
from cimphony.nn.experts import experts_apart
from cimphony.nn.layers import AnalogLayer
from cimphony.nn.low_rank import RANKS, reshape_
from cimphony.record import write_text, written

CHIP_FILE, STATE_FILE = "chip.yaml", "cimphony.json"
WEIGHTS_FILE, RANGES_FILE = "model.safetensors", "ranges.safetensors"
ATTENTION_FILE = "attention.safetensors"  # scalers of attention on a chip


def save(model: nn.Module, folder: str | Path) -> Path:
    """Write a converted model to a folder that `load_` and, for Hugging Face models, `from_pretrained` read.

    Layout: `chip.yaml`, `cimphony.json` (layers, seed, age), `ranges.safetensors` (calibration), and the digital
    weights as `save_pretrained` writes them, else `model.safetensors`.
    """
    layers, attention, learned = converted_layers(model, "save"), attention_layers(model), calibration_of(model)
    place, state = Path(folder), model.state_dict()
    if hasattr(model, "save_pretrained"):
        digital = {name: value for name, value in state.items() if name not in learned.attention}
        try:
            place.mkdir(parents=True, exist_ok=True)
            model.save_pretrained(place, **({"state_dict": digital} if attention else {}))  # type: ignore[operator]
        except (OSError, SafetensorError) as error:
            raise DataError(f"model {str(place)!r} cannot be written: {error}; choose another folder") from None
    else:
        write_tensors(_unshared(state), place / WEIGHTS_FILE, "model")
    chip = next(iter(attention.values())).chip if attention else next(iter(layers.values())).tiles[0].chip
    write_text(chip.to_yaml(), place / CHIP_FILE, "saved chip")
    if attention:
        write_tensors(_unshared(learned.attention), place / ATTENTION_FILE, "saved attention")
    write_tensors(learned.ranges, place / RANGES_FILE, "saved ranges")
    write_text(json.dumps(_state(model, layers, learned), indent=1) + "\n", place / STATE_FILE, "saved model")
    return place


def write_tensors(
    tensors: Mapping[str, Tensor], path: str | Path, what: str, metadata: dict[str, str] | None = None
) -> None:
    """Write safetensors atomically; DataError, naming `what` it is, where the file cannot be written."""
    with written(path, what) as part:
        try:
            save_file(dict(tensors), part, metadata=metadata)
        except SafetensorError as error:
            raise OSError(errno.EIO, str(error)) from None


def load_(model: nn.Module, folder: str | Path) -> nn.Module:
    """Make a digital model of the same architecture the saved analog one, in place: weights, chip, ranges, cells.

    A Hugging Face model comes with its weights, from `from_pretrained(folder)`. Raises DataError where folder and
    model do not belong together.
    """
    place = Path(folder)
    if is_converted(model):
        raise StateError("load_ takes a digital model: cim.restore_(model) first")
    chip, state = load_saved_chip(place), _read_state(place)
    if not hasattr(model, "save_pretrained"):
        _load_weights(model, place)
    with experts_apart(model):
        return _convert_as_saved(model, chip, state, place)


def _convert_as_saved(model: nn.Module, chip: Chip, state: dict[str, Any], place: Path) -> nn.Module:
    missing = sorted(set(state["layers"]) - {name for name, _ in model.named_modules()})
    if missing:
        raise DataError(
            f"{place} holds weights of another model: this {type(model).__name__} has no layer {missing[0]}"
        )
    _check_fingerprints(model, state["layers"], place)
    convert_(model, chip, include=list(state["layers"]))
    model.__dict__["_cimphony_digital"] = state["digital"]
    recalibrate_(model, _saved_calibration(place, state))
    if state["seed"] is not None:
        program_(model, seed=state["seed"])
        if state["age"]:
            age_(model, seconds=state["age"])
    return model


def load_low_rank(folder: str | Path, config: Any) -> Any:
    """A Hugging Face model whose configuration names decomposed layers, with the folder's weights.

    transformers does not know such layers. Raises DataError where the folder is not local.
    """
    place = Path(folder)
    if not place.is_dir():
        raise DataError(f"{folder} holds decomposed layers: download it first, and give its local folder")
    with torch.random.fork_rng():  # the values are loaded next
        model = model_class(config)(config)
    reshape_(model, getattr(config, RANKS))
    _load_weights(model, place)
    return model


def load_saved_chip(folder: Path) -> Chip:
    """The chip of a saved model."""
    if not (folder / CHIP_FILE).is_file():
        raise DataError(f"{folder} holds no {CHIP_FILE}: it was not written by cim.save")
    return load_chip(folder / CHIP_FILE)


def load_calibration(folder: str | Path, chip: Chip) -> Calibration | None:
    """The calibration of a model saved from this chip; None where there is none, or it is of another chip.

    Chips that differ in nothing but the noise of their cells share a calibration.
    """
    place = Path(folder)
    if not (place / STATE_FILE).is_file():
        return None
    quiet, own = (one.only("converters") for one in (load_saved_chip(place), chip))
    if (quiet.units, quiet.policy) != (own.units, own.policy):
        return None
    found = _saved_calibration(place, _read_state(place))
    return found if found.complete else None


def _saved_calibration(place: Path, state: dict[str, Any]) -> Calibration:
    attention = place / ATTENTION_FILE
    scalers = load_file(attention) if attention.is_file() else {}
    return Calibration(load_file(place / RANGES_FILE), state.get("acam", {"layers": {}, "passes": {}}), scalers)


def _state(model: nn.Module, layers: dict[str, AnalogLayer], learned: Calibration) -> dict[str, Any]:
    programmed = next(iter(layers.values())).tiles[0].programmed if layers else None
    seeds = [attention.seed for attention in attention_layers(model).values()]
    return {
        "version": 1,
        "layers": {name: _fingerprint(layer) for name, layer in layers.items()},
        "digital": digital_layers(model),
        "acam": learned.acams,
        "seed": programmed.seed if programmed else None if layers else seeds[0],
        "age": programmed.seconds if programmed else None,
    }


def _read_state(folder: Path) -> dict[str, Any]:
    try:
        state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        if state["version"] == 1:
            return state
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder / STATE_FILE} cannot be read ({error}); write the folder again with cim.save"
        ) from None
    raise DataError(f"{folder / STATE_FILE} has version {state['version']}; this library reads version 1")


def _fingerprint(layer: nn.Module) -> str:
    """A hash of a layer's weight, so that cells are never rebuilt from other weights than were programmed."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    values = weight.detach().to("cpu", torch.float32).contiguous().numpy()
    return hashlib.blake2b(values.tobytes(), digest_size=16).hexdigest()


def _check_fingerprints(model: nn.Module, saved: dict[str, str], folder: Path) -> None:
    for name, fingerprint in saved.items():
        if _fingerprint(model.get_submodule(name)) != fingerprint:
            raise DataError(
                f"{folder} was saved with other weights than this model's: layer {name} differs. Load the model with "
                "from_pretrained(folder), in the dtype it was saved in, then cim.load_"
            )


def _load_weights(model: nn.Module, folder: Path) -> None:
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise DataError(f"{folder} holds no {WEIGHTS_FILE}; write the folder again with cim.save")
    saved: dict[str, Tensor] = {}
    for file in files:
        saved |= load_file(file)
    own = model.state_dict()
    wrong = [name for name, tensor in saved.items() if name not in own or own[name].shape != tensor.shape]
    if wrong:
        raise DataError(f"{folder} holds weights of another model: {wrong[0]} does not fit this {type(model).__name__}")
    model.load_state_dict(saved, strict=False)  # tied weights are saved once
    if hasattr(model, "tie_weights"):
        model.tie_weights()  # type: ignore[operator]


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """safetensors wants each tensor in memory of its own."""
    return {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
