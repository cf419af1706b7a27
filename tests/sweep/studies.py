"""Small studies, and measures of our own that other processes can import."""

import os
import signal

from cimphony.nn import analog_layers
from cimphony.sweep import make_study

COST = {
    "name": "small",
    "chip": "hyflexpim",
    "workload": {"prompt": 16},
    "axes": {"units.analog.rows": [32, 64, 128], "units.analog.adc.bits": [6, 7, 8]},
    "measures": ["energy", "latency", "area"],
}
ONE_LAYER = ["*.mlp.*", "*.c_proj", "lm_head", "transformer.h.[1-9]*"]  # stay digital, so that chips are made fast
NUMBERS = {
    "name": "numbers",
    "chip": "hyflexpim",
    "data": {"text": "demo", "max_tokens": 32},
    "exclude": ONE_LAYER,
    "population": {"seeds": 2},
    "axes": {"fidelity": ["effective"], "age": [0, "1d"]},
    "measures": ["perplexity"],
}


def study(base=COST, **changes):
    return make_study({**base, **changes})


def programmed(model):
    """What the tiles hold now; None for the digital model."""
    layers = analog_layers(model)
    return next(iter(layers.values())).tiles[0].programmed if layers else None


def seed_of(model):
    """1, 2, ... for seeds 0, 1, ...; 1 for the digital model."""
    held = programmed(model)
    return 1.0 if held is None else 1.0 + held.seed


def dies_at_one(model):
    if seed_of(model) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return seed_of(model)


def exits_at_one(model):
    if seed_of(model) == 2:
        os._exit(7)
    return seed_of(model)


def fails_at_one(model):
    if seed_of(model) == 2:
        raise MemoryError("no more")
    return seed_of(model)


def plain(record):
    """Everything but the clock."""
    return record.model_dump_json(exclude={"created", "duration"})
