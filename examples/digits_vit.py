"""A small vision transformer on scikit-learn's digits: how accurate on five chips, fresh and after a day?

It is trained from scratch in a few seconds, then measured on two memory technologies.

    python examples/digits_vit.py
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from transformers import ViTConfig, ViTForImageClassification

import cimphony as cim

DAY = 86_400.0
EPOCHS = 12


def load_data() -> tuple[torch.Tensor, torch.Tensor]:
    """Images [n, 1, 8, 8] from -1 to 1 and their labels [n], in a fixed random order."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 8 - 1
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images[order], torch.tensor(digits.target)[order]


def train(images: torch.Tensor, labels: torch.Tensor) -> ViTForImageClassification:
    torch.manual_seed(0)
    config = ViTConfig(
        image_size=8,
        patch_size=4,
        num_channels=1,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=96,
        num_labels=10,
        initializer_range=0.1,  # wider than the default of 0.02, which is for wider layers
    )
    model = ViTForImageClassification(config)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    steps = EPOCHS * -(-len(images) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images)).split(64):
            loss = F.cross_entropy(model(images[batch]).logits, labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval()


def main() -> None:
    torch.set_num_threads(1)  # layers this small are no faster on more
    images, labels = load_data()
    model = train(images[:1300], labels[:1300])
    test = [(images[1300:], labels[1300:])]

    print(f"{'chip':14}{'age':>8}{'digital':>10}{'mean':>8}{'sd':>8}{'worst':>8}   accuracy over 5 chips")
    for name in ("rram-neurram", "pcm-256"):
        record = cim.evaluate_chips(
            model,
            lambda analog: cim.accuracy(analog, test),
            cim.load_chip(name),
            seeds=range(5),
            ages=(0.0, DAY),
            calibration=images[:256].split(16),
            metric_name="accuracy",
        )
        for group in record.results["groups"]:
            age = "fresh" if group["age"] == 0 else "a day"
            numbers = "".join(f"{group[key]:8.4f}" for key in ("mean", "sd", "min"))
            print(f"{name:14}{age:>8}{record.results['digital']:10.4f}{numbers}")


if __name__ == "__main__":
    main()
