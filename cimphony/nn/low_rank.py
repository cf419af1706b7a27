"""Linear layers as a product of two thin ones, with the singular values apart."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cimphony.errors import DataError

RANKS = "cimphony_low_rank"  # in a Hugging Face configuration: ranks of the decomposed layers by name


def hard_threshold(rows: int, columns: int) -> int:
    """The rank m n / (m + n) at which two factors hold as many weights as the matrix did, rounded down."""
    return max(1, rows * columns // (rows + columns))


class LowRankLinear(nn.Module):
    """y = U diag(sigma) V^T x + b: a linear layer whose singular values are parameters of their own.

    `left` is U [out, rank], `sigma` [rank], `right` V^T [rank, in]. `gradient` [rank] is the mean of |dL/dsigma| that
    a method measured, kept with the weights; zeros where none was.
    """

    gradient: Tensor

    def __init__(self, left: Tensor, sigma: Tensor, right: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.left, self.sigma, self.right = nn.Parameter(left), nn.Parameter(sigma), nn.Parameter(right)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        self.register_buffer("gradient", torch.zeros_like(sigma))

    @classmethod
    def from_weight(cls, weight: Tensor, bias: Tensor | None, rank: int) -> "LowRankLinear":
        """The best approximation of a weight [out, in] by `rank` ranks (Eckart-Young), computed in float64."""
        largest = min(weight.shape)
        if not 1 <= rank <= largest:
            raise DataError(f"rank = {rank} is not allowed for a layer of {tuple(weight.shape)}: choose 1 to {largest}")
        u, s, vt = torch.linalg.svd(weight.detach().double(), full_matrices=False)
        left, sigma, right = (part.to(weight.dtype).contiguous() for part in (u[:, :rank], s[:rank], vt[:rank]))
        return cls(left, sigma, right, bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs [..., in], outputs [..., out]."""
        return F.linear(F.linear(inputs, self.right) * self.sigma, self.left, self.bias)

    def extra_repr(self) -> str:
        """Shapes, as torch prints them."""
        return f"in_features={self.right.shape[1]}, out_features={self.left.shape[0]}, rank={self.sigma.numel()}"


class FusedLowRank(nn.Module):
    """A low-rank layer for inference: `right` multiplies with diag(sigma) V^T, `left` with U.

    Two ordinary linear layers, so that a chip runs them. `sigma` and `gradient` [rank] stay for choosing cells.
    """

    sigma: Tensor
    gradient: Tensor

    def __init__(self, layer: LowRankLinear) -> None:
        super().__init__()
        out_features, rank = layer.left.shape
        device, dtype = layer.left.device, layer.left.dtype
        self.right = nn.Linear(layer.right.shape[1], rank, bias=False, device="meta")
        self.left = nn.Linear(rank, out_features, bias=layer.bias is not None, device="meta")
        self.right.weight = nn.Parameter((layer.sigma[:, None] * layer.right).detach().to(device, dtype))
        self.left.weight = nn.Parameter(layer.left.detach().clone())
        if layer.bias is not None:
            self.left.bias = nn.Parameter(layer.bias.detach().clone())
        self.left.__dict__["modes_by"] = "row"  # read by trace: a rank is an input of U, cell modes divide its rows
        self.register_buffer("sigma", layer.sigma.detach().clone())
        self.register_buffer("gradient", layer.gradient.clone())

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs [..., in], outputs [..., out]."""
        return self.left(self.right(inputs))


def weight_of(module: nn.Module) -> Tensor | None:
    """The weight [out, in] of a layer that can be decomposed: nn.Linear or transformers' Conv1D."""
    if type(module) is nn.Linear:
        return module.weight
    if type(module).__name__ == "Conv1D" and isinstance(module.weight, Tensor):
        return module.weight.T
    return None


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of another, in the same mode."""
    parent, _, last = name.rpartition(".")
    module.train(model.training)
    setattr(model.get_submodule(parent), last, module)


def reshape_(model: nn.Module, ranks: Mapping[str, int], *, fused: bool = True) -> nn.Module:
    """Give layers the low-rank shape without any values in it, which are to be loaded: nothing is decomposed."""
    for name, rank in ranks.items():
        layer = model.get_submodule(name)
        weight, bias = weight_of(layer), layer.bias
        if weight is None:
            raise DataError(f"layer {name} of the configuration's {RANKS} is no linear layer of this model")
        like: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
        left, sigma, right = (
            torch.zeros(shape, **like) for shape in ((weight.shape[0], rank), (rank,), (rank, weight.shape[1]))
        )
        made = LowRankLinear(left, sigma, right, bias if isinstance(bias, Tensor) else None)
        replace_module(model, name, FusedLowRank(made) if fused else made)
    return model
