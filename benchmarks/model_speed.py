"""A whole BERT-Base encoder (random weights) on a chip: processor time of a forward pass, digital and analog, one core.

Also programming, the backward pass of one layer, and a read whose cells are regenerated.

python benchmarks/model_speed.py [--chip hyflexpim] [-o benchmarks/results/model_speed.json]
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertModel

import cimphony as cim
from cimphony.nn import analog_layers
from cimphony.record import versions


def seconds(run: Callable[[], Any], repeats: int) -> float:
    """Smallest processor time."""
    times = []
    for _ in range(repeats):
        before = time.process_time()
        run()
        times.append(time.process_time() - before)
    return min(times)


def paired(ours: Callable[[], Any], theirs: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Both in turn; smallest times and the median of the ratios."""
    ours(), theirs()
    pairs = [(seconds(ours, 1), seconds(theirs, 1)) for _ in range(repeats)]
    return {
        "seconds": min(a for a, _ in pairs),
        "digital": min(b for _, b in pairs),
        "ratio": statistics.median(a / b for a, b in pairs),
    }


def backward(chip: cim.Chip, fidelity: str) -> dict[str, float]:
    """Gradients of inputs and weight of one 768 x 3072 layer, 128 tokens."""
    digital = torch.nn.Linear(768, 3072)
    analog = cim.program_(
        cim.convert_(torch.nn.Sequential(copy.deepcopy(digital)), chip.replace({"units.analog.fidelity": fidelity}))
    )
    inputs, upstream = torch.randn(128, 768, requires_grad=True), torch.randn(128, 3072)

    def gradients(model: torch.nn.Module) -> Callable[[], Any]:
        wanted, outputs = (inputs, *model.parameters()), model(inputs)
        return lambda: torch.autograd.grad(outputs, wanted, upstream, retain_graph=True)

    return paired(gradients(analog), gradients(digital), 21)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chip", default="hyflexpim")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/model_speed.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    digital = BertModel(BertConfig()).eval()
    tokens = torch.randint(0, 30_000, (1, arguments.tokens))
    record: dict[str, Any] = {"versions": versions(), "chip": arguments.chip, "tokens": arguments.tokens}
    chip = cim.load_chip(arguments.chip)
    for fidelity in ("exact", "effective"):
        model = copy.deepcopy(digital)
        cim.convert_(model, chip.replace({"units.analog.fidelity": fidelity}))
        weights = sum(layer.weight.numel() for layer in analog_layers(model).values())
        written = seconds(lambda model=model: cim.program_(model, seed=0), 1)
        with torch.no_grad():
            row = paired(lambda model=model: model(tokens), lambda: digital(tokens), arguments.repeats)
        record[fidelity] = row | {
            "program": written,
            "weights": weights,
            "program_100_million": written * 1e8 / weights,
        }
        record[fidelity]["backward"] = backward(chip, fidelity)
        print(fidelity, record[fidelity])
        if fidelity == "exact":
            cim.program_(model, seed=0, memory="regenerated")
            with torch.no_grad():
                record["regenerated"] = {"seconds": seconds(lambda model=model: model(tokens), 1)}
            record["regenerated"]["ratio"] = record["regenerated"]["seconds"] / row["digital"]
            print("regenerated", record["regenerated"])
    arguments.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
