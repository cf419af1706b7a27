"""Model names to Hugging Face configurations and classes: built-in names, local folders, hub names.

transformers takes seconds to import; here and beside it is imported where a model of its is made or changed.
"""

import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from safetensors import SafetensorError

from cimphony.errors import DataError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_BUILT_IN = Path(str(files("cimphony") / "models"))


def model_names() -> list[str]:
    """Names of the models that come with the library: `demo` with weights, the others as shapes only."""
    return sorted(entry.parent.name for entry in _BUILT_IN.glob("*/config.json"))


def resolve(name: str | Path) -> str:
    """The folder of a built-in name or of a path; anything else is left as it is, a hub name.

    Raises DataError for a path that is not the folder of a model.
    """
    if str(name) in model_names():
        return str(_BUILT_IN / str(name))
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise DataError(f"model folder {str(name)!r} has no config.json; give a folder written by save_pretrained")
        return str(path)
    if path.exists():
        raise DataError(f"model {str(name)!r} is a file; give its folder, the one with config.json")
    if path.is_absolute() or str(name).startswith(".") or len(path.parts) > 2:
        raise DataError(f"model folder {str(name)!r} does not exist. Built-in models: {', '.join(model_names())}")
    return str(name)


def is_pretrained(model: object) -> "TypeGuard[PreTrainedModel]":
    """Whether a model is one of transformers'; where nobody imported its models there is none."""
    modelling = sys.modules.get("transformers.modeling_utils")
    return modelling is not None and isinstance(model, modelling.PreTrainedModel)


def load_config(name: str | Path) -> "PretrainedConfig":
    """The configuration of a model, without weights.

    Args:
        name: a built-in name (`demo`, `bert-large`, `llama-3-70b`, ...), a local folder, or a hub name.

    Raises DataError where there is no such model, or the hub cannot be reached.
    """
    from transformers import AutoConfig

    return quietly(AutoConfig.from_pretrained, name)


def quietly(load: Any, name: str | Path, **options: Any) -> Any:
    """`load(name)` by a transformers Auto class; what goes wrong becomes one DataError."""
    folder = resolve(name)
    try:
        return load(folder, **options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(
            f"model {str(name)!r} cannot be loaded: {reason} (a model is a built-in name, {', '.join(model_names())}; "
            "a local folder; or a hub name, for which the hub must be reachable or the model already downloaded)"
        ) from None


def model_class(config: "PretrainedConfig") -> "type[PreTrainedModel]":
    """The class a configuration asks for; where it names none, the head that models of its type are known for.

    Raises DataError where transformers has no class for it.
    """
    import transformers

    for name in config.architectures or ():
        if hasattr(transformers, name):
            return getattr(transformers, name)
    masked = type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING
    for mapping in (
        transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
        {} if masked else transformers.MODEL_FOR_CAUSAL_LM_MAPPING,
        transformers.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
        transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
        transformers.MODEL_MAPPING,
    ):
        if type(config) in mapping:
            found: Any = mapping[type(config)]
            return found[0] if isinstance(found, tuple) else found
    raise DataError(
        f"no model class for a configuration of type {config.model_type!r}; name one in its 'architectures', "
        "or pass the model itself"
    )
