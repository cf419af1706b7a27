"""Gain-cell attention as a module: per-head scalers in front of and behind the arrays, two executions that agree.

Without a ring all tokens of a text run at once; with one (see `ring.py`) they are written and read in turn.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cimphony.chip import Chip, GainCellAttentionUnit
from cimphony.circuits.charge_to_pulse import quantise
from cimphony.circuits.gain_cell import Columns, attend
from cimphony.circuits.gain_cell_noise import Draws
from cimphony.errors import CapacityError

if TYPE_CHECKING:
    from cimphony.nn.ring import RingLayer

SCALERS = ("query", "key", "value", "output")
_SMALLEST = 1e-20  # a gain is positive


class AffineScaler(nn.Module):
    """One gain and one shift for each head, learnable, with the mean and deviation of what comes out.

    `watch`: "off"; "record", which follows the statistics of training batches in `mean` and `deviation` (both
    [head], part of the state dict); "measure", which leaves those of the last batch in `measured`.
    """

    mean: Tensor
    deviation: Tensor
    recorded: Tensor

    def __init__(self, heads: int, shift: float = 0.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(heads))
        self.shift = nn.Parameter(torch.full((heads,), shift))
        self.register_buffer("mean", torch.zeros(heads))
        self.register_buffer("deviation", torch.zeros(heads))
        self.register_buffer("recorded", torch.zeros((), dtype=torch.int64))  # batches
        self.watch = "off"
        self.measured: tuple[Tensor, Tensor] | None = None

    def forward(self, inputs: Tensor, valid: Tensor | None = None) -> Tensor:
        """[batch, head, token, feature] to the same; `valid` [batch, token] leaves padding out of the statistics."""
        scaled = inputs * self.gain.clamp(min=_SMALLEST).view(-1, 1, 1) + self.shift.view(-1, 1, 1)
        if self.watch == "measure" or (self.watch == "record" and self.training):
            self._observe(scaled.detach().transpose(1, 2), valid)
        return scaled

    def _observe(self, scaled: Tensor, valid: Tensor | None) -> None:
        """Scaled is [batch, token, head, feature]."""
        tokens = scaled.flatten(0, 1) if valid is None else scaled[valid]
        deviation, mean = torch.std_mean(tokens.float(), dim=(0, 2))
        if self.watch == "measure":
            self.measured = mean, deviation
            return
        share = 0.1 if self.recorded else 1.0
        self.mean.lerp_(mean.to(self.mean), share)
        self.deviation.lerp_(deviation.to(self.deviation), share)
        self.recorded += 1


class GainCellAttention(nn.Module):
    """What replaces softmax attention in one layer: scalers, arrays, scalers.

    Args:
        layer: name of the attention module, part of the key of its random numbers.
        heads, key_heads, size: query heads, key and value heads, features of a head.
        layers: layers of attention in the model; they decide the token period where the unit gives none.

    Raises CapacityError where a head does not fit an array.
    """

    def __init__(
        self, chip: Chip, unit_name: str, layer: str, *, heads: int, key_heads: int, size: int, layers: int
    ) -> None:
        super().__init__()
        self.layer, self.heads, self.key_heads, self.size, self.layers = layer, heads, key_heads, size, layers
        self.use(chip, unit_name)
        self.query, self.output = AffineScaler(heads), AffineScaler(heads)
        self.key, self.value = (AffineScaler(key_heads, self.unit.cell.middle) for _ in range(2))
        self.incoming: RingLayer | None = None  # set by the cache during a forward pass
        self.program(0)

    def use(self, chip: Chip, unit_name: str) -> None:
        """Take the arrays of this chip; the scalers keep what they learned."""
        unit = chip.unit(unit_name, GainCellAttentionUnit)
        if self.size > unit.array:
            arrays = f"the {unit.array} x {unit.array} arrays of units.{unit_name}"
            raise CapacityError(
                f"chip {chip.name!r}, layer {self.layer}: heads of size {self.size} do not fit {arrays}; choose a "
                f"model with smaller heads, or units.{unit_name}.array = {self.size}"
            )
        self.chip, self.unit_name, self.unit = chip, unit_name, unit
        retention = unit.cell.retention
        self.rate = unit.period(self.layers) / retention if retention else 0.0

    def program(self, seed: int) -> None:
        """Another manufactured chip; the next text is its first."""
        self.seed, self.texts = seed, 0

    def describe(self) -> dict[str, Any]:
        """What is applied, for a summary: plain data, and under `attention` the cells of its table."""
        unit = self.unit
        leak = f"1/e in {1 / self.rate:.4g} tokens" if self.rate else "none"
        noisy = unit.noise.model_dump() if unit.noise else {}
        wrong = ", ".join(f"{name} {value:g}" for name, value in noisy.items() if value) or "no noise"
        cells = [
            f"{self.heads} heads of {self.size}, window {unit.window}",
            self.unit_name,
            f"{unit.cell.multiplier.kind}, {unit.cell.levels or 'any'} levels, leakage {leak}",
            f"{unit.pulses.input_levels or 'any'} pulse widths",
            f"{unit.pulses.output_levels or 'any'} codes a sub-tile of {unit.array} columns",
            f"gain cells ({wrong})",
            "exact",
            "reference",
        ]
        data = unit.model_dump(mode="json", include={"array", "window", "cell", "pulses", "noise"})
        shape = {"heads": self.heads, "key_heads": self.key_heads, "size": self.size, "decay_per_token": self.rate}
        return {"kind": unit.kind, "seed": self.seed, **shape, **data, "attention": cells}

    @property
    def scalers(self) -> dict[str, AffineScaler]:
        """By place: query, key, value, output."""
        return {name: getattr(self, name) for name in SCALERS}

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, valid: Tensor | None = None, window: int | None = None
    ) -> Tensor:
        """Attention of the last tokens of a text: [batch, head, query, feature] in and out.

        Args:
            key, value: [batch, key head, token, feature], not repeated; with a ring only the new tokens.
            valid: bool [batch, token], False where a token is padding; None: none is.
            window: of the model; None or above the chip's: the chip's.
        """
        ring, self.incoming = self.incoming, None
        dtype = torch.promote_types(query.dtype, torch.float32 if self.training else torch.float64)
        first = ring.count if ring is not None else 0
        old = key.shape[2] - query.shape[2]  # earlier tokens that come without a ring
        seen = None if valid is None else valid[:, -query.shape[2] :]
        draws = self._draws(ring, key.shape[0], first, key.shape[2])
        pulses = quantise(self.query(query.to(dtype), seen), self.unit.pulses.input_levels, 1.0)
        keys, values = (
            self._written(name, part.to(dtype), valid, draws) for name, part in (("key", key), ("value", value))
        )
        time = torch.arange(first, first + key.shape[2], device=query.device)
        now = time[old:]
        if ring is not None:
            keys, values, time, valid = ring.write(keys, values, time, valid, self.unit.window)
        columns = self._columns(now, time, valid, min(window or self.unit.window, self.unit.window))
        reading = self._draws(ring, key.shape[0], first + old, query.shape[2]) if draws else None
        found = attend(self.unit, pulses, keys, values, columns, rate=self.rate, draws=reading)
        if ring is None:
            self.texts += key.shape[0]
        return self.output(found, seen).to(query.dtype)

    def _written(self, name: str, part: Tensor, valid: Tensor | None, draws: Draws | None) -> Tensor:
        """Stored voltages, one set of columns for each query head."""
        cell = self.unit.cell
        volts = quantise(self.scalers[name](part, valid), cell.levels, cell.supply)
        volts = volts.repeat_interleave(self.heads // self.key_heads, dim=1)
        return volts if draws is None else draws.write(volts, name)

    def _columns(self, now: Tensor, time: Tensor, valid: Tensor | None, window: int) -> Columns:
        age = now.unsqueeze(1) - time
        live = ((age >= 0) & (age < window) & (time >= 0)).unsqueeze(0)
        if valid is not None:
            live = live & valid.unsqueeze(1)
        return Columns(time.clamp(min=0) % self.unit.window, age, live)

    def _draws(self, ring: "RingLayer | None", batch: int, first: int, tokens: int) -> Draws | None:
        if self.unit.noise is None:
            return None
        if ring is not None and ring.texts is None:
            ring.texts, self.texts = list(range(self.texts, self.texts + batch)), self.texts + batch
        texts = ring.texts if ring is not None and ring.texts else range(self.texts, self.texts + batch)
        return Draws(
            self.unit, self.unit.noise, self.seed, self.layer, self.heads, self.size, texts, first, tokens
        )  # fmt: skip
