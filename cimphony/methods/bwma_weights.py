"""Binary weights in closed form: the signs, scale and shift that stand for a layer's weights.

Every rule gives W ~ alpha b + beta with b in {-1, +1}, one alpha and beta per layer or per output channel. BWMA
(arXiv 2508.21524) states a closed form but its first page does not give it, so the candidates are all here:

- sign: alpha = 1, beta = 0 (Courbariaux et al. 2016).
- mean: alpha = mean|W|, beta = 0: least squares without a shift (Rastegari et al., XNOR-Net, 2016).
- two_means: least squares with a shift, exact: optimal two-means of the weights by sorting and prefix sums.
- gaussian, laplace: the two-means solution of that distribution, from mean and standard deviation alone.
- entropy: as many +1 as -1 for a symmetric distribution, alpha a power of two of the standardised weights
  (Qin et al., IR-Net, 2020), carried back to the weights' own scale without their mean.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from cimphony.errors import DataError

Rule = Literal["sign", "mean", "two_means", "gaussian", "laplace", "entropy"]
Grain = Literal["layer", "channel"]
RULES: tuple[Rule, ...] = get_args(Rule)
_DEVIATION = {"gaussian": math.sqrt(2 / math.pi), "laplace": math.sqrt(0.5)}  # E|W - mean| in standard deviations


@dataclass(frozen=True)
class Binary:
    """A weight as alpha * sign + beta, in the weight's dtype."""

    sign: Tensor  # -1 or +1, the weight's shape
    alpha: Tensor  # [channel], 0 or more
    beta: Tensor  # [channel]

    def weight(self) -> Tensor:
        """What the rule makes of the weight, in its shape."""
        shape = (-1, *[1] * (self.sign.dim() - 1))
        return self.sign * self.alpha.view(shape) + self.beta.view(shape)

    def error(self, weight: Tensor) -> Tensor:
        """Mean squared error [channel]."""
        return (weight - self.weight()).flatten(1).square().mean(dim=1)


def binarise(weight: Tensor, rule: Rule = "two_means", grain: Grain = "channel") -> Binary:
    """A weight [channel, ...] of a linear layer or convolution by one of the `RULES`.

    Raises DataError for an unknown rule or grain, and for weights that are not finite.
    """
    if rule not in RULES:
        raise DataError(f"rule = {rule!r} is unknown; choose one of {', '.join(RULES)}")
    if grain not in get_args(Grain):
        raise DataError(f"grain = {grain!r} is unknown; choose layer or channel")
    if not bool(torch.isfinite(weight).all()):
        raise DataError("the weights hold NaN or Inf; they cannot be made binary")
    rows = weight.detach().double().flatten(1)
    groups = rows if grain == "channel" else rows.reshape(1, -1)  # [group, weight]
    threshold, alpha, beta = _solve(groups, rule)
    sign = torch.where(groups > threshold[:, None], 1.0, -1.0).view_as(weight).to(weight.dtype)
    alpha, beta = (one.expand(weight.shape[0]).to(weight.dtype) for one in (alpha, beta))
    return Binary(sign, alpha, beta)


def _solve(groups: Tensor, rule: Rule) -> tuple[Tensor, Tensor, Tensor]:
    """Threshold, alpha and beta of each group [group, weight]; a weight above the threshold is +1."""
    zero = torch.zeros_like(groups[:, 0])
    below_zero = torch.nextafter(zero, zero - 1)  # a weight of exactly 0 counts as +1
    if rule == "sign":
        return below_zero, zero + 1, zero
    if rule == "mean":
        return below_zero, groups.abs().mean(dim=1), zero
    if rule == "two_means":
        return two_means(groups)
    mean = groups.mean(dim=1)
    if rule == "entropy":
        deviation = groups.std(dim=1, correction=0)
        ratio = (groups - mean[:, None]).abs().mean(dim=1) / torch.where(deviation > 0, deviation, 1.0)
        return mean, deviation * torch.exp2(torch.log2(ratio.clamp(min=1e-12)).round()), zero
    return mean, groups.std(dim=1, correction=0) * _DEVIATION[rule], mean


def two_means(groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Threshold, alpha and beta [group] that minimise the squared error of [group, weight], exactly.

    The best split of sorted numbers into two runs maximises S^2 / k + (T - S)^2 / (n - k), S being the sum of the
    first k: all splits at once from prefix sums, O(n log n).
    """
    n = groups.shape[1]
    if n == 1:
        return groups[:, 0], torch.zeros_like(groups[:, 0]), groups[:, 0]
    ordered = groups.sort(dim=1).values
    centre = ordered.mean(dim=1, keepdim=True)
    prefix = (ordered - centre).cumsum(dim=1)[:, :-1]  # centred, so that the last sum is 0
    count = torch.arange(1, n, dtype=groups.dtype, device=groups.device)
    gain = prefix.square() * (1 / count + 1 / (n - count))
    best = gain.argmax(dim=1, keepdim=True)
    below, size = prefix.gather(1, best).squeeze(1), (best + 1).squeeze(1)
    low, high = centre.squeeze(1) + below / size, centre.squeeze(1) - below / (n - size)
    threshold = (ordered.gather(1, best) + ordered.gather(1, best + 1)).squeeze(1) / 2
    return threshold, (high - low) / 2, (high + low) / 2
