"""Time and memory of gradient redistribution on encoder layers of BERT-Base, beside the layers as they came.

    python benchmarks/redistribution_speed.py [-o benchmarks/results/redistribution_speed.json]

One thread, processor time. SVD by shape (float64, then truncated); a fine-tuning step (forward, backward, AdamW, and
the sums of gradients) and an inference of two layers on 32 texts of 128 tokens, as ratios of neighbouring runs, the
median. Memory: weights with their gradients and moments, and what the forward pass keeps for the backward one.
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
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from cimphony.methods.gradient_redistribution import GradientRedistribution, decompose_, fuse_
from cimphony.nn.low_rank import LowRankLinear, hard_threshold
from cimphony.record import versions

SHAPES = {"attention, 768 x 768": ((768, 768), 4), "feed-forward, 768 x 3072": ((3072, 768), 2)}  # and how many a layer
LAYERS = 12  # of BERT-Base


def seconds(run: Callable[[], Any]) -> float:
    """Processor time of a run."""
    began = time.process_time()
    run()
    return time.process_time() - began


def svd() -> dict[str, float]:
    """Seconds for one layer of each shape, the median of three, and for the 72 of BERT-Base."""

    def once(shape: tuple[int, int]) -> float:
        weight = torch.randn(shape)
        return seconds(lambda: LowRankLinear.from_weight(weight, None, hard_threshold(*shape)))

    found = {name: statistics.median(once(shape) for _ in range(3)) for name, (shape, _) in SHAPES.items()}
    return found | {"BERT-Base": LAYERS * sum(found[name] * count for name, (_, count) in SHAPES.items())}


def step(model: nn.Module, hidden: Tensor) -> Callable[[], Any]:
    """One step of fine-tuning; a decomposed model goes through GradientRedistribution, a dense one through AdamW."""
    if any(isinstance(module, LowRankLinear) for module in model.modules()):
        method = GradientRedistribution(1, lr=1e-9)
        return lambda: method.fit(model, [hidden], loss=loss, progress=False)

    def dense() -> None:
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-9, weight_decay=0.0)  # a new one, as `fit` makes
        optimiser.zero_grad()
        loss(model, hidden).backward()
        optimiser.step()

    return dense


def loss(model: nn.Module, hidden: Tensor) -> Tensor:
    """Something to differentiate."""
    return model(hidden).last_hidden_state.square().mean()


def memory(model: nn.Module, hidden: Tensor) -> dict[str, float]:
    """MiB of weights, gradients and two moments, and of what is kept for the backward pass (each storage once)."""
    kept: dict[int, int] = {}
    weights = {one.untyped_storage().data_ptr() for one in model.parameters()}

    def keep(one: Tensor) -> Tensor:
        storage = one.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return one

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
        loss(model, hidden).backward()
    held = sum(one.numel() for one in model.parameters())
    return {
        "weights, gradients, moments [MiB]": 16 * held / 2**20,
        "kept for backward [MiB]": sum(kept.values()) / 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/redistribution_speed.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dense = BertModel(BertConfig(num_hidden_layers=2), add_pooling_layer=False).encoder.train()
    hidden = torch.randn(32, 128, 768)
    low = decompose_(copy.deepcopy(dense))
    record: dict[str, Any] = {"versions": versions(), "svd [s]": svd()}
    record["memory"] = {name: memory(one, hidden) for name, one in (("dense", dense), ("low rank", low))}
    fused = fuse_(copy.deepcopy(low))
    with torch.no_grad():
        pairs = [(seconds(lambda: fused(hidden)), seconds(lambda: dense(hidden))) for _ in range(3)]
    record["inference"] = {"dense [s]": min(pairs)[1], "ratio": statistics.median(a / b for a, b in pairs)}
    ours, theirs = step(low, hidden), step(dense, hidden)
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(3)]
    record["step"] = {"dense [s]": min(pairs)[1], "ratio": statistics.median(a / b for a, b in pairs)}
    arguments.output.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
