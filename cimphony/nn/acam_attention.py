"""Attention in ACAMs: products of activations by log, add and exp, softmax by exp, sum, log, exp.

Nothing is written into arrays: every step is a function of one number, which an array of the identity hands to its
ACAMs, and additions are digital. A product is a look-up by two codes, so a chip's whole multiplier is one table.

Source: NL-DPE (arXiv 2511.13950), sections on data-dependent products and softmax; docs/nl_dpe.md.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from cimphony.chip import Acam, AcamUnit, Chip, CrossbarUnit
from cimphony.circuits.acam import Function, Table, compile_function, manufacture
from cimphony.errors import DataError, StateError

_SEEN = ("query", "key", "value", "score product", "value product", "sum")  # largest magnitudes by calibration
_AT_ONCE = 1 << 20  # products
_SMALLEST = math.log(600)  # exp(-x) beyond it is code 0 of 8 bits


class Multiplier:
    """sign(a) sign(b) exp(log |a| + log |b|) on one chip: codes of the logs, and signed products by codes."""

    def __init__(
        self, acam: Acam, unit: AcamUnit, largest: tuple[float, float, float], *, seed: int, name: str
    ) -> None:
        """Largest: magnitudes of the left and the right operand and of a product."""
        spans = [self._span(unit, one) for one in largest[:2]]
        if unit.log_scales == "shared":
            width = max(high - low for low, high in spans)
            spans = [(high - width, high) for _, high in spans]
        self.added = unit.floor if unit.floor_is == "added" else 0.0
        self.logs = [
            _table(acam, torch.log, (math.exp(low), math.exp(high)), seed, f"{name}, {side} log")
            for (low, high), side in zip(spans, ("left", "right"), strict=True)
        ]
        total = (spans[0][0] + spans[1][0], spans[0][1] + spans[1][1])
        output = (math.exp(total[0]), max(largest[2], 2 * math.exp(total[0])))
        exp = _table(acam, torch.exp, total, seed, f"{name}, exp", output)
        values = [log.quantiser.values(torch.arange(log.quantiser.top + 1)) for log in self.logs]
        products = exp((values[0][:, None] + values[1][None, :]).float())
        signed = torch.cat([torch.cat([products, -products], dim=1), torch.cat([-products, products], dim=1)])
        self.products = nn.functional.pad(signed, (0, 1, 0, 1)).contiguous()  # the last code is zero

    @staticmethod
    def _span(unit: AcamUnit, largest: float) -> tuple[float, float]:
        largest = max(largest, 1e-20)
        if unit.floor_is == "share":
            return math.log(largest * unit.floor), math.log(largest)
        return math.log(unit.floor), math.log(largest + unit.floor)

    def _codes(self, values: Tensor, side: int) -> Tensor:
        """int32 codes with a sign; what is zero has a code of its own."""
        log = self.logs[side]
        codes = log.codes(values.abs() + self.added).to(torch.int32)
        codes += (values < 0).to(torch.int32) * (log.quantiser.top + 1)
        return codes.masked_fill_(values == 0, len(self.products) - 1)

    def __call__(self, left: Tensor, right: Tensor) -> Tensor:
        """[item, row, inner] x [item, inner, column] to [item, row, column], float32; sums are digital and exact."""
        if self.products.device != left.device:
            self.products = self.products.to(left.device)
            self.logs = [log.to(left.device) for log in self.logs]
        rows = self._codes(left, 0) * len(self.products)
        columns, table = self._codes(right, 1), self.products.view(-1)
        items, height, inner = left.shape
        result = left.new_empty((items, height, right.shape[2]), dtype=torch.float32)
        step = max(1, _AT_ONCE // (inner * right.shape[2]))
        for item in range(items):
            for first in range(0, height, step):
                at = rows[item, first : first + step, :, None] + columns[item][None]
                found = table.index_select(0, at.view(-1)).view(at.shape)
                result[item, first : first + step] = found.sum(dim=1)
        return result


class Softmax:
    """exp(s - log sum exp(s)) for scores s with their largest taken off, on one chip; sums are digital."""

    def __init__(self, acam: Acam, largest_sum: float, *, seed: int, name: str) -> None:
        scores = (-_SMALLEST, 0.0)
        self.grow = _table(acam, torch.exp, scores, seed, f"{name}, exp", (0.0, 1.0))
        self.log = _table(acam, torch.log, (1.0, max(largest_sum, 1.01)), seed, f"{name}, log of the sum")
        self.shrink = _table(acam, torch.exp, scores, seed, f"{name}, share", (0.0, 1.0))

    def __call__(self, scores: Tensor, allowed: Tensor | None) -> Tensor:
        """Scores [..., query, token] to shares (float32); what is not allowed has none."""
        if self.grow.breaks.device != scores.device:
            for table in (self.grow, self.log, self.shrink):
                table.to(scores.device)
        scores = scores if allowed is None else scores.masked_fill(~allowed, -1e30)
        scores = (scores - scores.amax(dim=-1, keepdim=True)).float()
        grown = self.grow(scores) if allowed is None else self.grow(scores) * allowed
        shares = self.shrink(scores - self.log(grown.sum(dim=-1, keepdim=True)))
        return shares if allowed is None else shares * allowed


def _table(
    acam: Acam, function: Function, domain: tuple[float, float], seed: int, name: str,
    output: tuple[float, float] | None = None,
) -> Table:  # fmt: skip
    rows = compile_function(function, domain, acam.bits, gray=acam.code == "gray", output=output, rows=acam.rows)
    return Table(manufacture(rows, acam, seed=seed, name=name))


class AcamAttention(nn.Module):
    """softmax(Q K^T * scaling + mask) V with both products, and softmax where the chip says so, in ACAMs.

    Args:
        layer: name of the attention module, part of the key of its random numbers; the others describe its heads.
    """

    masked = True  # takes the model's own mask and scaling
    largest: Tensor

    def __init__(self, chip: Chip, unit_name: str, layer: str, *, heads: int, size: int, **_: int) -> None:
        super().__init__()
        unit = chip.unit(unit_name, AcamUnit)
        acam = chip.unit(unit.arrays, CrossbarUnit).acam
        assert acam is not None
        self.chip, self.unit_name, self.layer, self.unit, self.acam = chip, unit_name, layer, unit, acam
        self.heads, self.size, self.seed = heads, size, 0
        self.in_softmax = isinstance(chip.unit_for("softmax"), AcamUnit)
        self.register_buffer("largest", torch.zeros(len(_SEEN)))  # part of the state dict
        self.calibrating = False
        self.circuits: tuple[Multiplier, Softmax, Multiplier] | None = None

    def start_calibration(self) -> None:
        """Forget what was learned and begin to watch."""
        self.largest.zero_()
        self.calibrating, self.circuits = True, None

    def finish_calibration(self, *, completed: bool) -> None:
        """Stop to watch."""
        self.calibrating = False
        if not completed:
            self.largest.zero_()

    def program(self, seed: int) -> None:
        """Another manufactured chip."""
        if not bool(self.largest.any()):
            raise StateError(
                f"layer {self.layer}: its ACAMs have learned no ranges: run a few batches in "
                "'with cim.calibrate(model):' before program_, with data that reaches it"
            )
        q, k, v, score, value, total = self.largest.tolist()
        self.seed, name = seed, f"{self.layer}/acam"
        self.circuits = (
            Multiplier(self.acam, self.unit, (q, k, score), seed=seed, name=f"{name} scores"),
            Softmax(self.acam, total, seed=seed, name=f"{name} softmax"),
            Multiplier(self.acam, self.unit, (1.0, v, value), seed=seed, name=f"{name} values"),
        )

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
        """[batch, head, query, feature] in and out; gradients are those of exact attention.

        Args:
            mask: added to the scores, [batch, 1 or head, query, token]; None: every query sees every token.
        """
        repeats = query.shape[1] // key.shape[1]
        key, value = (part.repeat_interleave(repeats, dim=1) for part in (key, value))
        needed = torch.is_grad_enabled() and query.requires_grad
        if not (needed or self.calibrating):
            return self._found(query, key, value, mask, scaling).to(query.dtype)
        scores = query @ key.transpose(2, 3) * scaling
        shares = (scores if mask is None else scores + mask).softmax(dim=-1)
        ideal = shares @ value
        if self.calibrating:
            self._observe(query.detach(), key.detach(), value.detach(), shares.detach())
            return ideal
        found = self._found(query.detach(), key.detach(), value.detach(), mask, scaling)
        return ideal + (found - ideal).detach().to(query.dtype)

    def _found(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
        if self.circuits is None:
            raise StateError(f"layer {self.layer}: its ACAMs are not programmed: run cim.program_(model, seed=...)")
        for part in (query, key, value):
            if not bool(torch.isfinite(part).all()):
                raise DataError(f"layer {self.layer}: attention gets NaN or Inf; look at the layer before")
        by_key, softmax, by_value = self.circuits
        shape = (*query.shape[:3], key.shape[2])
        scores = by_key(query.flatten(0, 1), key.transpose(2, 3).flatten(0, 1)).view(shape) * scaling
        if mask is not None:
            scores = scores + mask
        allowed = None if mask is None else mask > torch.finfo(mask.dtype).min / 2
        shares = softmax(scores, allowed) if self.in_softmax else scores.softmax(dim=-1)
        return by_value(shares.flatten(0, 1), value.flatten(0, 1)).view(*query.shape[:3], value.shape[3])

    def _observe(self, query: Tensor, key: Tensor, value: Tensor, shares: Tensor) -> None:
        """Largest operands; largest products, bounded by feature and by token; largest sum of a softmax."""
        by_feature = query.abs().amax(dim=2) * key.abs().amax(dim=2)
        by_token = shares.amax(dim=2) * value.abs().amax(dim=3)
        total = 1 / shares.amax(dim=-1)  # of exp(s - largest)
        seen = [float(one.max()) for one in (query.abs(), key.abs(), value.abs(), by_feature, by_token, total)]
        self.largest.copy_(torch.maximum(self.largest, torch.tensor(seen).to(self.largest)))

    def describe(self) -> dict[str, Any]:
        """What is applied, for a summary: plain data, and under `attention` the cells of its table."""
        noisy = self.acam.thresholds
        scale = 0.0 if noisy is None else noisy.device.scale
        cells = [
            f"{self.heads} heads of {self.size}", self.unit_name, "products by log, add, exp",
            f"logs of {self.acam.bits} bits, zero below {self.unit.floor:.3g} ({self.unit.floor_is})",
            f"ACAM, {self.acam.bits} bits {self.acam.code}",
            f"noise x {scale:g}", "exact", "look-up table",
        ]  # fmt: skip
        data = {"bits": self.acam.bits, "code": self.acam.code, "softmax": self.in_softmax, "noise_scale": scale}
        ranges = dict(zip(_SEEN, self.largest.tolist(), strict=True))
        return {"kind": self.unit.kind, "seed": self.seed, **data, "largest": ranges, "attention": cells}
