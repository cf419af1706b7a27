"""Layers that compute on tiles: swapped subclasses of the layers they replace.

A layer keeps its parameters, name, hooks and identity; only its class and one plain attribute, `tiles`, change.
So tied weights stay tied, state dicts hold no hardware settings, and `restore_` is bit-exact.
"""

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit._trace import is_tracing
from torch.nn import functional as F

from cimphony.circuits.uncompiled import uncompiled
from cimphony.errors import DataError, StateError
from cimphony.nn.acam import Readout
from cimphony.nn.experts import ExpertLinear
from cimphony.nn.low_rank import FusedLowRank
from cimphony.nn.programmed import Assignment, Axis, Memory
from cimphony.nn.tiles import Tiles


class _StraightThrough(torch.autograd.Function):
    """Forward through the chip, backward through its effective weights."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, tiles: Tiles) -> Tensor:
        """Inputs [token, row], weight [row, column]."""
        assert tiles.programmed is not None
        ctx.save_for_backward(inputs)
        if ctx.needs_input_grad[0]:
            ctx.effective = tiles.programmed.weights
        return tiles.matmul(inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Gradients of inputs and weight, as if the layer were a product with the effective weights."""
        (inputs,) = ctx.saved_tensors
        gradient = gradients[0]
        to_inputs = gradient @ ctx.effective.to(gradient.dtype).T if ctx.needs_input_grad[0] else None
        to_weight = inputs.T @ gradient if ctx.needs_input_grad[1] else None
        return to_inputs, to_weight, None


class Stamp:
    """What a weight was when its cells were written: how often it was changed in place, where it is, and its norm.

    Fused optimisers, the default of transformers' Trainer, change weights behind torch's count of versions; the norm
    tells. It is only looked at where the weight may have been trained, or lies elsewhere in memory.
    """

    def __init__(self, weight: Tensor) -> None:
        self.version = 0 if weight.is_inference() else weight._version  # inference tensors cannot be trained
        self.place = weight.data_ptr()
        self.norm = _norm(weight)
        self.trained = False  # the layer ran forward in training since
        self.outdated = False  # known to differ, whatever weight follows

    def differs(self, weight: Tensor, closely: bool) -> bool:
        """Whether the weight changed since."""
        if self.outdated or self.version != (0 if weight.is_inference() else weight._version):
            return True
        if not (closely or self.trained or weight.data_ptr() != self.place):
            return False
        return not self.same_norm(weight)

    def same_norm(self, weight: Tensor) -> bool:
        """Whether the weight looks like the one of the stamp; sums depend on the number of threads."""
        return math.isclose(self.norm, _norm(weight), rel_tol=1e-13)

    def follow(self, weight: Tensor, *, changed: bool) -> "Stamp":
        """The stamp of what takes the weight's place, a copy or another dtype: cells that were outdated stay so."""
        following = Stamp(weight)
        following.trained, following.outdated = self.trained, changed
        return following


def _norm(weight: Tensor) -> float:
    return 0.0 if weight.is_meta else float(torch.linalg.vector_norm(weight.detach(), dtype=torch.float64))


class AnalogLayer(nn.Module):
    """What the analog layers share: a list of tiles, one for each group of a convolution, else one."""

    tiles: list[Tiles]
    weight: Tensor
    bias: Tensor | None
    rewritable: bool  # cells follow the weight: memory of an adapter, written anew whenever the weight changes
    readout: Readout | None  # ACAMs behind the columns; None: an ADC, or nothing
    _written: Stamp  # of the weight that the cells hold

    def matrices(self) -> list[Tensor]:
        """The weight as matrices [row, column], one for each entry of `tiles`."""
        raise NotImplementedError

    def program(self, *, seed: int, seconds: float = 0.0, rewrites: int = 0, memory: Memory | None = None) -> None:
        """Write the present weights into cells; without `memory`, kept as those before them."""
        for tiles, matrix in zip(self.tiles, self.matrices(), strict=True):
            kept = memory or (tiles.programmed.memory if tiles.programmed is not None else "stored")
            tiles.program(matrix.detach(), seed=seed, seconds=seconds, rewrites=rewrites, memory=kept)
        if self.readout is not None:
            self.readout.program(seed, rewrites, sum(matrix.shape[1] for matrix in self.matrices()))
        self._written = Stamp(self.weight)

    @property
    def calibrating(self) -> bool:
        """Whether the layer watches its inputs and computes digitally."""
        return self.tiles[0].calibrating

    @property
    def stale(self) -> bool:
        """Whether the weight changed after it was programmed."""
        return self._written.differs(self.weight, closely=self.rewritable)

    def check_inputs(self, inputs: Tensor, features: int, axis: int = -1) -> None:
        """DataError for inputs of another size, or of whole numbers, whose type the outputs would take."""
        if inputs.shape[axis] != features or not inputs.is_floating_point():
            raise DataError(
                f"layer {self.tiles[0].layer}: its inputs are {inputs.dtype} {list(inputs.shape)}; it takes floating "
                f"point with {features} features at position {axis}"
            )

    @uncompiled
    def multiply(self, inputs: Tensor, index: int = 0) -> Tensor:
        """Inputs [..., row] through tile `index`, [..., column], in the dtype that autocast asks for."""
        tiles = self.tiles[index]
        self._check_written(tiles)
        kind = inputs.device.type
        output_dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else inputs.dtype
        with torch.autocast(kind, enabled=False):
            flat = inputs.reshape(-1, inputs.shape[-1])
            flat = flat if flat.dtype == torch.float64 else flat.float()
            if torch.is_grad_enabled():
                outputs = _StraightThrough.apply(flat, self.matrices()[index].to(flat.dtype), tiles)
            else:
                outputs = tiles.matmul(flat)
        return outputs.view(*inputs.shape[:-1], outputs.shape[-1]).to(output_dtype)  # type: ignore[union-attr]

    def linear(self, inputs: Tensor, weight: Tensor) -> Tensor:
        """What a linear layer of this weight [out, in] gives on its one tile, bias included: inputs [..., in]."""
        self.check_inputs(inputs, weight.shape[1])
        if self.calibrating:
            self.tiles[0].observe(inputs.reshape(-1, inputs.shape[-1]))
            return self.read_out(F.linear(inputs, weight, self.bias))
        outputs = self.multiply(inputs)
        if self.bias is None:
            return self.read_out(outputs)
        bias = self.bias.to(outputs.dtype)
        return self.read_out(outputs + bias if torch.is_grad_enabled() else outputs.add_(bias))

    def read_out(self, outputs: Tensor) -> Tensor:
        """Outputs [..., column], bias included, through the ACAMs; codes that were added digitally are read already."""
        added = self.tiles[0].blocks and self.readout is not None and self.readout.follows is None
        return outputs if self.readout is None or added else self.readout(outputs)

    def _check_written(self, tiles: Tiles) -> None:
        if is_tracing() or torch.compiler.is_exporting() or torch._C._are_functorch_transforms_active():
            raise StateError(
                f"layer {tiles.layer}: a chip's reads cannot be traced, exported or transformed (torch.jit.trace, "
                "torch.export, ONNX, torch.func): cim.restore_ makes the model digital again"
            )
        if tiles.programmed is None:
            raise StateError(
                f"layer {tiles.layer} holds no weights yet: run cim.program_(model, seed=...) before the model"
            )
        stale = self.stale
        self._written.trained |= self.training and torch.is_grad_enabled() and self.weight.requires_grad
        if not stale:
            return
        if not (self.training or self.rewritable or self._written.trained):
            raise StateError(
                f"the weights of layer {tiles.layer} changed after they were programmed: run cim.program_ again, "
                "or cim.restore_ to leave the chip"
            )
        # training, and evaluation during it: the chip is written anew after each optimiser step, with a fresh draw
        last = tiles.programmed
        self.program(seed=last.seed, seconds=last.seconds, rewrites=last.rewrites + 1)
        self._written.trained = True

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Follow the weight to its device; a change of dtype leaves the cells as they are."""
        changed = self._written.differs(self.weight, closely=True)
        super()._apply(fn, recurse)
        for tiles in self.tiles:
            if tiles.programmed is not None:
                tiles.programmed = tiles.programmed.to(self.weight.device)
        self._written = self._written.follow(self.weight, changed=changed)
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        written = self._written  # a copied parameter counts its changes anew
        changed = written.outdated or not written.same_norm(self.weight)
        self._written = written.follow(self.weight, changed=changed)


class AnalogLinear(AnalogLayer, nn.Linear):
    """nn.Linear on tiles. Inputs [..., in_features], outputs [..., out_features]."""

    def matrices(self) -> list[Tensor]:
        """[in_features, out_features]."""
        return [self.weight.T]

    def forward(self, input: Tensor) -> Tensor:
        """The linear layer as the chip computes it; the bias is added digitally."""
        return self.linear(input, self.weight)


class AnalogExpert(AnalogLinear, ExpertLinear):  # type: ignore[misc]
    """A product of one expert of a mixture on tiles of its own."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        stack = state.get("stack", self.__dict__.get("stack"))
        if stack is not None and stack.__dict__:
            super().__setstate__(state)
        else:  # in a copy the stack, with the weights, comes after its layers; it calls again
            nn.Module.__setstate__(self, state)


class AnalogConv1D(AnalogLayer):
    """transformers' Conv1D (GPT-2) on tiles: a linear layer whose weight is [in, out]."""

    nf: int

    def matrices(self) -> list[Tensor]:
        """[in, out]."""
        return [self.weight]

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs [..., in], outputs [..., out]; the bias is added digitally."""
        return self.linear(inputs, self.weight.T)


class AnalogConv2d(AnalogLayer, nn.Conv2d):
    """nn.Conv2d on tiles: every pixel's receptive field is one token of in_channels / groups * kh * kw rows."""

    def matrices(self) -> list[Tensor]:
        """[in_channels / groups * kh * kw, out_channels / groups] for each group."""
        return [part.flatten(1).T for part in self.weight.chunk(self.groups)]

    def forward(self, input: Tensor) -> Tensor:
        """Images [batch, channel, height, width] or [channel, height, width]."""
        if input.dim() == 3:
            return self.forward(input[None])[0]
        self.check_inputs(input, self.in_channels, axis=1)
        padded = pad(self, input)
        fields = receptive_fields(self, padded)
        if self.calibrating:
            for tiles, field in zip(self.tiles, fields, strict=True):
                tiles.observe(field.reshape(-1, field.shape[-1]))
            return self.read_out(self._conv_forward(input, self.weight, self.bias))
        outputs = torch.cat([self.multiply(field, index) for index, field in enumerate(fields)], dim=-1)
        if self.bias is not None:
            outputs = outputs + self.bias.to(outputs.dtype)
        outputs = self.read_out(outputs)
        return outputs.transpose(1, 2).reshape(input.shape[0], self.out_channels, *pixels(self, padded))


def pad(conv: nn.Conv2d, images: Tensor) -> Tensor:
    """Images as a convolution pads them."""
    sides = conv._reversed_padding_repeated_twice
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    return F.pad(images, sides, mode=mode) if any(sides) else images


def receptive_fields(conv: nn.Conv2d, padded: Tensor) -> list[Tensor]:
    """What the weights of each group of a convolution are multiplied with: [batch, pixel, row]."""
    sizes: Any = {"kernel_size": conv.kernel_size, "dilation": conv.dilation, "stride": conv.stride}
    return [F.unfold(part, **sizes).transpose(1, 2) for part in padded.chunk(conv.groups, dim=1)]


def pixels(conv: nn.Conv2d, padded: Tensor) -> tuple[int, int]:
    """Height and width of what a convolution makes of padded images."""
    height, width = (
        (size - conv.dilation[axis] * (conv.kernel_size[axis] - 1) - 1) // conv.stride[axis] + 1
        for axis, size in enumerate(padded.shape[-2:])
    )
    return height, width


def analog_class(module: nn.Module) -> type[AnalogLayer] | None:
    """The analog class for a layer, or None. Subclasses with a forward of their own are left alone."""
    kind = type(module)
    if kind is nn.Linear:
        return AnalogLinear
    if kind is ExpertLinear:
        return AnalogExpert
    if kind is nn.Conv2d:
        return AnalogConv2d
    if kind.__name__ == "Conv1D" and kind.__module__ == "transformers.pytorch_utils":
        return _conv1d_class(kind)
    return None


@cache
def _conv1d_class(kind: type[nn.Module]) -> type[AnalogLayer]:
    """AnalogConv1D as a subclass of transformers' own class."""
    return type("AnalogConv1D", (AnalogConv1D, kind), {"__module__": __name__, "__doc__": AnalogConv1D.__doc__})


def place_ranks(pair: FusedLowRank, importance: Tensor, slc_rate: float) -> None:
    """Put the most important ranks of a converted pair in SLC cells: columns of diag(sigma) V^T, rows of U."""
    order = torch.argsort(importance, descending=True, stable=True)
    sides: tuple[tuple[nn.Module, Axis], ...] = ((pair.right, "column"), (pair.left, "row"))
    for layer, axis in sides:
        if isinstance(layer, AnalogLayer):
            for tiles in layer.tiles:
                tiles.assign(Assignment.first_in_slc(axis, order, slc_rate))
