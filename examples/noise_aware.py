"""Noise-aware fine-tuning: a small network is trained on chips that differ in every step, then meets new ones.

The chip is NL-DPE with eight times its published noise: no ADC, every column is read by a content-addressable memory
that turns the analog sum into the code of the activation.

    python examples/noise_aware.py
"""

import statistics

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import cimphony as cim
from cimphony.methods.noise_aware import fit_

CHIP = cim.load_chip("nl-dpe").replace(
    {"units.analog.fidelity": "effective", "units.analog.adc.thresholds.device.scale": 8.0}
)


def load_data() -> tuple[Tensor, Tensor]:
    """Images [n, 64] from 0 to 1 and their labels [n], in a fixed random order."""
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    return torch.tensor(digits.data, dtype=torch.float32)[order] / 16, torch.tensor(digits.target)[order]


def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch["images"]), batch["labels"])


def main() -> None:
    torch.set_num_threads(1)  # layers this small are no faster on more
    torch.manual_seed(0)
    images, labels = load_data()
    test = [(images[1300:], labels[1300:])]

    def batch(step: int) -> dict[str, Tensor]:
        at = torch.randint(0, 1300, (64,), generator=torch.Generator().manual_seed(step))
        return {"images": images[at], "labels": labels[at]}

    model = nn.Sequential(nn.Linear(64, 48), nn.GELU(), nn.Linear(48, 48), nn.GELU(), nn.Linear(48, 10))
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(300):
        optimiser.zero_grad()
        loss(model, batch(step)).backward()
        optimiser.step()
    model.eval()

    print(f"{'':12}{'digital':>9}{'mean':>8}{'sd':>8}{'worst':>8}   accuracy over 5 chips")
    for name in ("as trained", "noise-aware"):
        cim.convert_(model, CHIP)
        with cim.calibrate(model), torch.no_grad():
            model(images[:1300])
        if name == "noise-aware":
            fit_(model, batch, steps=100, lr=2e-3, ranges=0.06, loss=loss)
        found = [float(cim.accuracy(cim.program_(model, seed=seed), test)) for seed in range(5)]
        digital = float(cim.accuracy(cim.restore_(model), test))
        mean, sd = statistics.fmean(found), statistics.stdev(found)
        print(f"{name:12}{digital:9.3f}{mean:8.3f}{sd:8.3f}{min(found):8.3f}")


if __name__ == "__main__":
    main()
