"""A whole BERT-Base encoder (random weights) on a chip: processor time of a forward pass, digital and analog, one core.

python benchmarks/model_speed.py [--chip hyflexpim] [-o benchmarks/results/model_speed.json]
"""

import argparse
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertModel

import cimphony as cim
from cimphony.record import versions


def seconds(run: Callable[[], Any], repeats: int) -> float:
    """Smallest processor time."""
    times = []
    for _ in range(repeats):
        before = time.process_time()
        run()
        times.append(time.process_time() - before)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chip", default="hyflexpim")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/model_speed.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    digital = BertModel(BertConfig()).eval()
    tokens = torch.randint(0, 30_000, (1, arguments.tokens))
    record: dict[str, Any] = {"versions": versions(), "chip": arguments.chip, "tokens": arguments.tokens}
    with torch.no_grad():
        for fidelity in ("exact", "effective"):
            model = copy.deepcopy(digital)
            cim.convert_(model, cim.load_chip(arguments.chip).replace({"units.analog.fidelity": fidelity}))
            written = seconds(lambda model=model: cim.program_(model, seed=0), 1)
            model(tokens)  # lays the cells out
            pairs = [
                (seconds(lambda model=model: model(tokens), 1), seconds(lambda: digital(tokens), 1)) for _ in range(5)
            ]
            ratio = sorted(a / b for a, b in pairs)[2]
            record[fidelity] = {"seconds": min(pairs)[0], "digital": min(pairs)[1], "ratio": ratio, "program": written}
            print(f"{fidelity:10} {min(pairs)[0]:.3f} s, {ratio:.2f} times digital; programmed in {written:.1f} s")
    arguments.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
