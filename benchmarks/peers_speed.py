"""Layers of other simulators against the digital layer and against the exact read of the same shape, on one core.

    python benchmarks/peers_speed.py [-o benchmarks/results/peers_speed.json]

Needs `pip install aihwkit aihwkit-lightning`. No peer does the exact read, so the ratios are of different
computations: `effects` says what each layer models. Processor time, called in turn, medians of the ratios of pairs.
"""

import argparse
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aihwkit.nn
import aihwkit.simulator.configs as aihwkit_configs
import aihwkit_lightning.nn
import aihwkit_lightning.simulator.configs as lightning_configs
import torch
from read_speed import Case, paired
from torch import Tensor, nn

from cimphony.circuits import write
from cimphony.circuits.read import read_codes
from cimphony.record import versions

SIZE = 768
Layer = Callable[[Tensor], Any]


def aihwkit_default() -> Layer:
    layer = aihwkit.nn.AnalogLinear(SIZE, SIZE, rpu_config=aihwkit_configs.TorchInferenceRPUConfig()).eval()
    layer.program_analog_weights()
    layer.drift_analog_weights(60.0)
    return layer


def aihwkit_arrays() -> Layer:
    """An array of 64 rows, 8-bit inputs and a 6-bit converter on every column of it."""
    config = aihwkit_configs.TorchInferenceRPUConfig()
    config.mapping.max_input_size = 64
    config.forward.inp_res, config.forward.out_res, config.forward.out_noise = 1 / 254, 1 / 62, 0.0
    layer = aihwkit.nn.AnalogLinear(SIZE, SIZE, rpu_config=config).eval()
    layer.program_analog_weights()
    layer.drift_analog_weights(60.0)
    return layer


def lightning_default() -> Layer:
    return aihwkit_lightning.nn.AnalogLinear(SIZE, SIZE, rpu_config=lightning_configs.TorchInferenceRPUConfig()).eval()


def lightning_arrays() -> Layer:
    """An array of 64 rows, 8-bit inputs and a 6-bit converter on every column of it."""
    config = lightning_configs.TorchInferenceRPUConfig()
    config.mapping.max_input_size = 64
    config.pre_post.input_range.enable = True
    config.forward.inp_res, config.forward.out_res, config.forward.out_bound = 254, 62, 12.0
    return aihwkit_lightning.nn.AnalogLinear(SIZE, SIZE, rpu_config=config).eval()


ONE_PRODUCT = "one analog product of real weights and inputs"
PEERS: dict[str, tuple[Callable[[], Layer], str]] = {
    "aihwkit, default": (
        aihwkit_default,
        f"{ONE_PRODUCT} per 512 x 512 array: PCM programming noise and drift written into the weights, 7-bit inputs "
        "with noise and bound management, output noise, one 9-bit converter per output; no bits, no slices",
    ),
    "aihwkit, 64-row arrays": (
        aihwkit_arrays,
        f"{ONE_PRODUCT} per 64 rows, 8-bit inputs, a 6-bit converter on every sum; no bits, no slices",
    ),
    "aihwkit-lightning, default": (lightning_default, "a linear layer with every effect off"),
    "aihwkit-lightning, 64-row arrays": (
        lightning_arrays,
        f"{ONE_PRODUCT} per 64 rows, 8-bit inputs, a 6-bit converter on every sum; no bits, no slices",
    ),
}


def exact() -> Layer:
    """This library's read, inputs as integers."""
    case = Case("analog, 8 slices of 1 bit", SIZE, SIZE, 64, 1, 0.05, 6)
    unit = case.unit()
    integers = torch.randint(-127, 128, (SIZE, SIZE)).double()
    mode = next(iter(unit.cell.bits))
    cells = write(unit, mode, integers, seed=0, name="layer", seconds=0.0, largest_sum=None)

    def layer(activations: Tensor) -> Tensor:
        integers = (activations * (127 / activations.abs().amax(dim=1, keepdim=True))).round().to(torch.int64)
        return read_codes(integers, cells, unit.input)

    return layer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/peers_speed.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    installed = {name: version(name) for name in ("aihwkit", "aihwkit-lightning")}
    record: dict[str, Any] = {"versions": versions() | installed, "rows": []}
    digital = nn.Linear(SIZE, SIZE, bias=False)
    effects = "8 input bits x 8 slices x 12 arrays: programming noise, 6-bit converter on every one of the 768 sums"
    with torch.no_grad():
        for name, (make, models) in {"cimphony, exact": (exact, effects), **PEERS}.items():
            layer = make()
            for tokens in (1, 128):
                inputs = torch.randn(tokens, SIZE)
                row = paired(lambda layer=layer, inputs=inputs: layer(inputs), lambda inputs=inputs: digital(inputs))
                record["rows"].append({"layer": name, "tokens": tokens, "effects": models, **row})
                print(f"{name:34} {tokens:4} tokens {row['seconds'] * 1e3:8.3f} ms {row['ratio']:7.2f}")
    arguments.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
