"""The studies behind HyFlexPIM's accuracy claims: what is counted, on a network small enough for a test."""

from types import SimpleNamespace

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from cimphony.papers.hyflexpim_studies import Study


class Net(nn.Module):
    """A Conv1D as GPT-2 has it, a linear layer, and a head that stays off the chip."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = Conv1D(6, 4), nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> SimpleNamespace:
        made = self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))
        return SimpleNamespace(loss=made.square().mean())


class Task:
    name, metric, digital = "small", "loss", ("head",)

    def fresh(self) -> nn.Module:
        torch.manual_seed(0)
        return Net()

    def training(self, epoch: int) -> list[dict[str, torch.Tensor]]:
        generator = torch.Generator().manual_seed(epoch)
        return [{"x": torch.randn(3, 4, generator=generator)} for _ in range(2)]


def test_row_gradients_are_of_the_layers_on_the_chip() -> None:
    study = Study(Task(), None, epochs=0)  # type: ignore[arg-type]
    with torch.random.fork_rng():
        found, net = study.row_gradients(), Task().fresh()
    assert {name: total.shape for name, total in found.items()} == {"first": (6,), "second": (5,)}
    expected = torch.zeros(6)
    for batch in Task().training(100):
        net.zero_grad()
        net(**batch).loss.backward()
        expected += net.first.weight.grad.abs().sum(dim=0)  # Conv1D: [in, out]
    torch.testing.assert_close(found["first"], expected)
