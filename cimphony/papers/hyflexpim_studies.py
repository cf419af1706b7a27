"""What HyFlexPIM's accuracy is measured on: an encoder on GLUE, a decoder on a text, a vision transformer on digits.

Models and data are the user's, by path or hub name. Fine-tuned weights are kept in a work folder, so that a run that
was stopped goes on.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from cimphony.errors import DataError
from cimphony.evaluate import load_model, load_text, token_name
from cimphony.evaluate.glue import TASKS, batches, judge, load_glue, outputs_of
from cimphony.evaluate.metrics import evaluating, logits_of
from cimphony.methods.gradient_redistribution import GradientRedistribution, decomposable, decompose_, fuse_
from cimphony.nn.low_rank import hard_threshold, reshape_
from cimphony.nn.store import write_tensors

STAGES = ("dense", "svd", "svd, fine-tuned")
_STATISTICS = 40  # batches that gradient statistics without fine-tuning are taken over
_SHORT = 1e-30  # a learning rate that moves nothing


class Task(Protocol):
    """A model to begin with, batches to train on, outputs to compare and their metric."""

    name: str
    metric: str
    digital: tuple[str, ...]  # layers that stay off the chip

    def fresh(self) -> nn.Module:
        """The model before any training here."""
        ...

    def training(self, epoch: int) -> list[dict[str, Tensor]]:
        """Batches with labels, in an order that the epoch decides."""
        ...

    def outputs(self, model: nn.Module) -> Tensor:
        """Outputs on the held-out examples, [example, ...]."""
        ...

    def judge(self, outputs: Tensor) -> float:
        """The metric of such outputs."""
        ...

    def settings(self) -> dict[str, Any]:
        """What it takes to run this again."""
        ...


@dataclass
class Study:
    """A task through the stages of the method: dense, decomposed, decomposed and fine-tuned.

    Args:
        work: folder for weights; None keeps none.
        epochs, lr: of training without SVD; 0 epochs take the model as it comes.
        redistribution_epochs, redistribution_lr: of fine-tuning after SVD; lr None: a fifth of `lr`.
    """

    task: Task
    work: Path | None
    epochs: int = 3
    lr: float = 1e-4
    redistribution_epochs: int = 1
    redistribution_lr: float | None = None
    seed: int = 0

    @cached_property
    def models(self) -> dict[str, nn.Module]:
        """Digital models by stage, ready for a chip."""
        tuned, plain = (fuse_(self.redistributed(tuned=tuned)) for tuned in (True, False))
        return dict(zip(STAGES, (self.dense(), plain, tuned), strict=True))

    def dense(self) -> nn.Module:
        """Trained without SVD."""
        model = self.task.fresh()
        if not self.epochs:
            return model.eval()
        if kept := self._kept("dense"):
            return _loaded(model, kept)
        optimiser = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=self.lr, weight_decay=0.01)
        model.train()
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)  # dropout
            for epoch in range(self.epochs):
                for batch in self.task.training(epoch):
                    optimiser.zero_grad()
                    model(**batch).loss.backward()
                    optimiser.step()
        self._keep(model, "dense")
        return model.eval()

    def redistributed(self, *, tuned: bool) -> nn.Module:
        """SVD with hard threshold, then gradient statistics, with (`tuned`) or without fine-tuning on the way."""
        name = f"svd-{'tuned' if tuned else 'plain'}"
        if kept := self._kept(name):
            model = self.task.fresh()
            ranks = {layer: hard_threshold(*weight.shape) for layer, (weight, _) in self._layers(model).items()}
            return _loaded(reshape_(model, ranks, fused=False), kept)
        model = decompose_(self.dense(), exclude=self.task.digital)
        lr = (self.redistribution_lr or self.lr / 5) if tuned else _SHORT
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            batches = _Epochs(self.task, self.redistribution_epochs if tuned else 1, tuned)
            GradientRedistribution(1, lr=lr).fit(model, batches, progress=False)
        self._keep(model, name)
        return model.eval()

    def untruncated(self) -> nn.Module:
        """SVD without a threshold and without fine-tuning: only gradient statistics."""
        model = decompose_(self.dense(), rank=1.0, exclude=self.task.digital)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            GradientRedistribution(1, lr=_SHORT).fit(model, _Epochs(self.task, 1, whole=False), progress=False)
        return model.eval()

    def row_gradients(self) -> dict[str, Tensor]:
        """Sum over batches of |dL/dw| in every row (output) of every weight that SVD would take, by layer."""
        model = self.dense().train()
        weights = {name: weight for name, (weight, _) in self._layers(model).items()}
        sums = {name: torch.zeros(len(weight)) for name, weight in weights.items()}
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            for batch in _Epochs(self.task, 1, whole=False):
                model.zero_grad()
                model(**batch).loss.backward()
                for name, weight in weights.items():
                    own = cast("nn.Parameter", model.get_submodule(name).weight)
                    assert own.grad is not None
                    sums[name] += own.grad.abs().sum(dim=1 if own is weight else 0)  # Conv1D holds [in, out]
        return sums

    def settings(self) -> dict[str, Any]:
        """Everything needed to run it again."""
        names = ("epochs", "lr", "redistribution_epochs", "redistribution_lr", "seed")
        return {"task": self.task.name, **self.task.settings(), **{name: getattr(self, name) for name in names}}

    def _layers(self, model: nn.Module) -> dict[str, tuple[Tensor, Tensor | None]]:
        return decomposable(model, exclude=self.task.digital)

    def _path(self, name: str) -> Path | None:
        return self.work and self.work / f"{self.task.name}-{name}-{self.seed}.safetensors"

    def _kept(self, name: str) -> Path | None:
        path = self._path(name)
        return path if path and path.exists() else None

    def _keep(self, model: nn.Module, name: str) -> None:
        path = self._path(name)
        if path is None:
            return
        tied = getattr(model, "all_tied_weights_keys", {})
        kept = {key: value.detach().contiguous().clone() for key, value in model.state_dict().items()}
        write_tensors({key: value for key, value in kept.items() if key not in tied}, path, "trained weights")


def _loaded(model: nn.Module, path: Path) -> nn.Module:
    model.load_state_dict(load_file(path), strict=False)  # tied weights are kept once
    return model.eval()


class _Epochs:
    """Training batches of some epochs in one go; not `whole`: the first few only."""

    def __init__(self, task: Task, epochs: int, whole: bool) -> None:
        self.task, self.epochs, self.whole = task, epochs, whole

    def __len__(self) -> int:
        return len(self.task.training(100)) * self.epochs if self.whole else _STATISTICS

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for epoch in range(self.epochs):
            made = self.task.training(100 + epoch)
            yield from made if self.whole else made[:_STATISTICS]


@dataclass
class Glue:
    """An encoder with a head on a GLUE task.

    Args:
        model: folder or hub name of an encoder; `data`: folder with `TASK/train.tsv` and `TASK/dev.tsv`.
        train: use only this many training examples; None: all.
    """

    model: str
    data: str
    name: str
    train: int | None = None
    dev: int | None = None  # every n-th batch, to have about so many batches; None: all
    seed: int = 0
    digital: tuple[str, ...] = ("classifier", "*pooler*")  # the head stays digital, as in the released simulation

    def __post_init__(self) -> None:
        from transformers import AutoTokenizer

        if self.name not in TASKS:
            raise DataError(f"task {self.name!r} is not known; choose one of {', '.join(TASKS)}")
        self.metric: str = TASKS[self.name].metric
        self.tokenizer = AutoTokenizer.from_pretrained(self.model)
        made = batches(load_glue(self.data, self.name, "dev"), self.tokenizer, 32)
        self.held_out = made if self.dev is None else made[:: max(1, len(made) // self.dev)][: self.dev]

    def fresh(self) -> nn.Module:
        """The encoder with a new head, its embeddings frozen; the head's weights come from the seed."""
        from transformers import AutoModelForSequenceClassification

        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            model = AutoModelForSequenceClassification.from_pretrained(
                self.model, num_labels=TASKS[self.name].labels, dtype=torch.float32
            )
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("embeddings" not in name)
        return model

    @cached_property
    def _batches(self) -> list[tuple[dict[str, Tensor], Tensor]]:
        return batches(load_glue(self.data, self.name, "train").head(self.train), self.tokenizer, 32)

    def training(self, epoch: int) -> list[dict[str, Tensor]]:
        """Batches of 32, of like length, in an order that seed and epoch decide."""
        order = torch.randperm(len(self._batches), generator=torch.Generator().manual_seed(1000 * self.seed + epoch))
        return [{**self._batches[index][0], "labels": self._batches[index][1]} for index in order.tolist()]

    def outputs(self, model: nn.Module) -> Tensor:
        """Logits [example, class]."""
        return outputs_of(model, self.held_out)

    def judge(self, outputs: Tensor) -> float:
        """Accuracy, Matthews' or Spearman's correlation, as the task has it."""
        return judge(self.name, outputs, torch.cat([labels for _, labels in self.held_out]))

    def settings(self) -> dict[str, Any]:
        """Model, data and how much of it."""
        return {"model": Path(self.model).name, "train": self.train, "examples": sum(len(y) for _, y in self.held_out)}


@dataclass
class Text:
    """A decoder on a text: fine-tuned on its first three quarters, measured on windows of the rest."""

    name: str
    model: str
    data: str
    window: int = 256
    windows: int | None = 24  # at most, that are measured
    max_tokens: int | None = None  # of the whole text
    digital: tuple[str, ...] = ("lm_head",)
    pieces: tuple[Tensor, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self._model, tokenizer = load_model(self.model)
        self.metric = f"perplexity per {token_name(tokenizer)}"
        tokens = load_text(self.data, tokenizer)[: self.max_tokens]
        self.window = min(self.window, len(tokens) // 8 or 1)
        count = len(tokens) // self.window
        if self.window < 4:
            raise DataError(f"text {self.data!r} has {len(tokens)} tokens; tuning and measuring need at least 32")
        windows = tokens[: count * self.window].view(count, self.window)
        self.pieces = windows[: count * 3 // 4], windows[count * 3 // 4 :][: self.windows]

    def fresh(self) -> nn.Module:
        """The model as it comes."""
        return load_model(self.model)[0]

    def training(self, epoch: int) -> list[dict[str, Tensor]]:
        """Eight windows a batch, in an order that the epoch decides."""
        order = torch.randperm(len(self.pieces[0]), generator=torch.Generator().manual_seed(epoch))
        return [{"input_ids": ids, "labels": ids} for ids in self.pieces[0][order].split(8)]

    def outputs(self, model: nn.Module) -> Tensor:
        """Logits [token, word] for every token but the first of a window."""
        with evaluating(model):
            made = [logits_of(model(input_ids=ids, use_cache=False))[:, :-1] for ids in self.pieces[1].split(8)]
        return torch.cat(made).flatten(0, 1).float()

    def judge(self, outputs: Tensor) -> float:
        """Perplexity."""
        return float(F.cross_entropy(outputs, self.pieces[1][:, 1:].flatten()).exp())

    def settings(self) -> dict[str, Any]:
        """Model, text and how much of it."""
        return {"model": Path(self.model).name, "data": Path(self.data).name, "window": self.window,
                "tokens": self.pieces[1].numel()}  # fmt: skip


@dataclass
class Digits:
    """A small vision transformer on scikit-learn's digits, trained here from scratch in seconds."""

    name: str = "digits"
    metric: str = "accuracy"
    digital: tuple[str, ...] = ("classifier",)

    def __post_init__(self) -> None:
        from sklearn.datasets import load_digits

        found: Any = load_digits()
        order = torch.randperm(len(found.images), generator=torch.Generator().manual_seed(0))
        images = torch.tensor(found.images, dtype=torch.float32)[:, None] / 8 - 1
        self.images, self.labels = images[order], torch.tensor(found.target)[order]

    def fresh(self) -> nn.Module:
        """Untrained: two layers of 48 on four patches."""
        from transformers import ViTConfig, ViTForImageClassification

        with torch.random.fork_rng():
            torch.manual_seed(0)
            shape: dict[str, Any] = {"image_size": 8, "patch_size": 2, "num_channels": 1, "hidden_size": 48,
                                     "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 96,
                                     "num_labels": 10, "initializer_range": 0.1}  # fmt: skip
            return ViTForImageClassification(ViTConfig(**shape))

    def training(self, epoch: int) -> list[dict[str, Tensor]]:
        """Batches of 64 of the first 1000 pictures."""
        order = torch.randperm(1000, generator=torch.Generator().manual_seed(epoch))
        return [{"pixel_values": self.images[at], "labels": self.labels[at]} for at in order.split(64)]

    def outputs(self, model: nn.Module) -> Tensor:
        """Logits [picture, class] of the other pictures."""
        with evaluating(model):
            return logits_of(model(pixel_values=self.images[1000:]))

    def judge(self, outputs: Tensor) -> float:
        """Accuracy."""
        return float((outputs.argmax(dim=-1) == self.labels[1000:]).double().mean())

    def settings(self) -> dict[str, Any]:
        """The network."""
        return {"model": "ViT, 4 layers of 48, patches of 2 x 2", "train": 1000, "examples": len(self.labels) - 1000}
