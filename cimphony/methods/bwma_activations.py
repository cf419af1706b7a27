"""Activations of a few bits: staircases that can be trained, and that are the exact staircase at inference.

The staircase of n = 2^bits - 1 steps is Q(x) = clip * floor(n x / clip + 1/2) / n on [0, clip]. Three differentiable
forms stand in for it in training, each within 1 / (2n) of it everywhere and closer away from the steps as it sharpens:

- tanh: one tanh cell per step (DSQ, Gong et al. 2019); its cost does not grow with the bits.
- sigmoid: a sum of sigmoids, one per step (Yang et al., Quantization Networks, 2019), continued beyond both ends:
  without that the first and the last step are up to 1 / (n (e^sharpness - 1)) off. Its cost does not grow either.
- sine: x - sin(2 pi n x) / (2 pi n), iterated; nothing to set or to anneal.

Three baselines step hard and pass the gradient straight through: dorefa (fixed clip; Zhou et al. 2016), pact (learned
clip; Choi et al. 2018), lsq (learned step with its own gradient; Esser et al. 2020).
"""

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from cimphony.circuits import round_half_up
from cimphony.errors import DataError

Form = Literal["tanh", "sigmoid", "sine", "dorefa", "pact", "lsq"]
FORMS: tuple[Form, ...] = get_args(Form)
SOFT: tuple[Form, ...] = ("tanh", "sigmoid", "sine")
_LEARNED: tuple[Form, ...] = ("pact", "lsq")
_SINE_TIMES = 2


class Staircase(nn.Module):
    """Activations clipped to [0, clip] on 2^bits levels.

    Args:
        bits: 1 to 8.
        form: one of `FORMS`; what training sees. Evaluation is the exact staircase for all of them.
        clip: upper end; a parameter for pact and lsq. `calibrate_` sets it from data.
        sharpness: of tanh and sigmoid, per step; `anneal_` raises it while training.

    Raises DataError for values that are not allowed.
    """

    clip: Tensor

    def __init__(self, bits: int = 4, form: Form = "tanh", clip: float = 2.0, sharpness: float = 4.0) -> None:
        if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 8:
            raise DataError(f"bits = {bits!r} is not allowed: activations have 1 to 8 bits")
        if form not in FORMS:
            raise DataError(f"form = {form!r} is unknown; choose one of {', '.join(FORMS)}")
        if not clip > 0 or not sharpness >= 2:
            raise DataError(f"clip = {clip}, sharpness = {sharpness}: clip must be above 0, sharpness at least 2")
        super().__init__()
        self.bits, self.form, self.sharpness = bits, form, sharpness
        self.observed: list[Tensor] | None = None  # inputs seen by `calibrate_`
        value = torch.tensor(float(clip))
        if form in _LEARNED:
            self.clip = nn.Parameter(value)
        else:
            self.register_buffer("clip", value)

    @property
    def steps(self) -> int:
        """n, the highest code."""
        return 2**self.bits - 1

    def codes(self, x: Tensor) -> Tensor:
        """Codes 0 to n in the dtype of x: what the rows of an array see."""
        return round_half_up(x * (self.steps / self.clip)).clamp(0, self.steps)

    def forward(self, x: Tensor) -> Tensor:
        """The staircase of any tensor; in training its differentiable form."""
        if self.observed is not None:
            self.observed.append(x.detach().flatten()[:: max(1, x.numel() // 4096)].float())
            return x.clamp(min=0)
        if not self.training:
            return self.codes(x) * (self.clip / self.steps)
        if self.form == "lsq":
            return self._lsq(x)
        clipped = torch.minimum(x.clamp(min=0), self.clip)  # pact: what is cut off pulls at the clip
        if self.form in SOFT:
            return self.clip * soft_staircase(clipped / self.clip, self.steps, self.form, self.sharpness)
        return _straight(clipped, self.codes(clipped) * (self.clip / self.steps))

    def _lsq(self, x: Tensor) -> Tensor:
        """The step's own gradient, scaled as published: 1 / sqrt(elements * n)."""
        whole, share = self.clip / self.steps, 1 / math.sqrt(x.numel() * self.steps)
        step = whole * share + (whole * (1 - share)).detach()
        scaled = (x / step).clamp(0, self.steps)
        return _straight(scaled, round_half_up(scaled)) * step

    def extra_repr(self) -> str:
        """Shown in print(model)."""
        return f"bits={self.bits}, form={self.form!r}, clip={float(self.clip):.4g}"


def soft_staircase(x: Tensor, steps: int, form: Form, sharpness: float) -> Tensor:
    """A differentiable form of the staircase of `steps` steps on [0, 1]; x in [0, 1]."""
    if form == "sine":
        for _ in range(_SINE_TIMES):
            x = x - torch.sin(2 * math.pi * steps * x) / (2 * math.pi * steps)
        return x
    cell = (x.detach() * steps).floor().clamp(max=steps - 1)  # which step, from 0
    if form == "sigmoid":
        return (cell + _sigmoids(x * steps - cell - 0.5, sharpness)) / steps
    curve = torch.tanh(sharpness * (x * steps - cell - 0.5)) / math.tanh(sharpness / 2)
    return (cell + (curve + 1) / 2) / steps


def _sigmoids(x: Tensor, sharpness: float) -> Tensor:
    """An endless row of sigmoids one apart, less the whole steps below; x in [-1/2, 1/2]; terms below 1e-9 left out."""
    reach = math.ceil(20 / sharpness)
    centres = torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)
    return torch.sigmoid(sharpness * (x[..., None] - centres)).sum(dim=-1) - reach


def _straight(x: Tensor, hard: Tensor) -> Tensor:
    """The hard values, with the gradient of x."""
    return x + (hard - x).detach()
