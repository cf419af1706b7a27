"""QuadINR: how well each activation fits pictures and a video, at one size of network and one number of steps.

Learning rates are tuned for every kind on pictures that are not in the test. Everything is seeded.

    python papers/quad_inr_study.py                      # scikit-image's pictures, about half an hour on one free core
    python papers/quad_inr_study.py --pictures a.png b.png --kinds quad siren sine_matched --out mine.json
"""

import argparse
import statistics
import time

import torch

from cimphony.methods.quad_inr import KINDS, Inr, fit
from cimphony.papers.pictures import load_picture, load_video
from cimphony.record import new_record, write_record

PICTURES = ("camera", "astronaut", "coffee", "chelsea", "rocket", "brick")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", nargs="+", default=list(PICTURES))
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--rates", nargs="+", type=float, default=[7e-4, 1e-3, 1.5e-3, 2e-3, 3e-3, 5e-3])
    parser.add_argument("--tuning", nargs="+", default=["moon", "coins", "gravel"], help="pictures to tune on")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--no-video", action="store_true")
    parser.add_argument("--out", default="papers/results/quad-inr-pictures.json")
    return parser.parse_args()


def tune(kind: str, asked: argparse.Namespace) -> dict[str, float]:
    """Mean PSNR on the tuning pictures by learning rate."""
    signals = [load_picture(name, asked.size) for name in asked.tuning]
    return {
        f"{rate:g}": statistics.mean(
            fit(Inr(kind, width=asked.width, seed=100), one, steps=asked.steps, rate=rate).best for one in signals
        )
        for rate in asked.rates
    }


def run(kind: str, signal: torch.Tensor, rate: float, asked: argparse.Namespace) -> list[dict]:
    rows = []
    for seed in range(asked.seeds):
        network = Inr(kind, axes=signal.dim() - 1, channels=signal.shape[-1], width=asked.width, seed=seed)
        result = fit(network, signal, steps=asked.steps, rate=rate)
        rows.append({"seed": seed, "psnr": {str(step): round(value, 3) for step, value in result.psnr.items()}})
    return rows


def main() -> None:
    asked, began = options(), time.perf_counter()
    torch.set_num_threads(1)
    tuning = {kind: tune(kind, asked) for kind in asked.kinds}
    rates = {kind: float(max(found, key=found.__getitem__)) for kind, found in tuning.items()}
    print(rates, flush=True)
    signals = {name: load_picture(name, asked.size) for name in asked.pictures}
    signals |= {} if asked.no_video else {"video": load_video()}
    rows = []
    for name, signal in signals.items():
        for kind in asked.kinds:
            runs = run(kind, signal, rates[kind], asked)
            final = [max(one["psnr"].values()) for one in runs]
            rows.append({"signal": name, "kind": kind, "mean": statistics.mean(final), "sd": statistics.stdev(final)})
            rows[-1] |= {"shape": list(signal.shape), "runs": runs}
            print(f"{name:10} {kind:13} {rows[-1]['mean']:6.2f} +- {rows[-1]['sd']:.2f} dB", flush=True)
    settings = vars(asked) | {"best_rates": rates, "tuned_psnr": tuning, "decay": 0.1, "hidden": 2}
    del settings["out"]
    settings |= {"omega": {kind: KINDS[kind].omega for kind in asked.kinds}, "optimiser": "Adam, full batch"}
    record = new_record("study", "QuadINR: pictures and a video, PSNR by activation", settings=settings,
                        results={"rows": rows}, duration=time.perf_counter() - began)  # fmt: skip
    print("written:", write_record(record, asked.out))


if __name__ == "__main__":
    main()
