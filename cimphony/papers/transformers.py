"""Workloads that papers report on, from shapes alone: the encoder or decoder layers, without embeddings and heads."""

from dataclasses import dataclass

from cimphony.workload import Operation, Workload


@dataclass(frozen=True)
class Shape:
    """A transformer's layers."""

    name: str
    layers: int
    hidden: int
    inner: int
    heads: int
    key_heads: int | None = None  # none: as many as heads
    gated: bool = False  # three matrices in the feed-forward part instead of two

    @property
    def matrices(self) -> tuple[tuple[str, int, int], ...]:
        """Name, inputs and outputs of every stored matrix of a layer, in the order they run."""
        keys = self.hidden // self.heads * (self.key_heads or self.heads)
        gate = (("gate", self.hidden, self.inner),) if self.gated else ()
        return (
            ("query", self.hidden, self.hidden), ("key", self.hidden, keys), ("value", self.hidden, keys),
            ("attention_output", self.hidden, self.hidden),
            *gate, ("up", self.hidden, self.inner), ("down", self.inner, self.hidden),
        )  # fmt: skip


BERT_BASE = Shape("BERT-Base", 12, 768, 3072, 12)
BERT_LARGE = Shape("BERT-Large", 24, 1024, 4096, 16)
GPT2 = Shape("GPT-2", 12, 768, 3072, 12)
LLAMA_3B = Shape("Llama-3.2-3B", 28, 3072, 8192, 24, 8, gated=True)
LLAMA_1B = Shape("Llama-3.2-1B", 16, 2048, 8192, 32, 8, gated=True)


def prefill(shape: Shape, tokens: int) -> Workload:
    """All tokens at once through every layer; the attention is not causal, as the papers count it."""
    operations = [one for index in range(shape.layers) for one in _layer(shape, f"layers.{index}", tokens)]
    return Workload(model=f"{shape.name}, {tokens} tokens", operations=operations, prompt=tokens)


def _layer(shape: Shape, name: str, tokens: int) -> list[Operation]:
    size, products = shape.hidden // shape.heads, list[Operation]()
    for matrix, inputs, outputs in shape.matrices:
        product = Operation(layer=f"{name}.{matrix}", kind="static_matmul", m=tokens, k=inputs, n=outputs)
        products.append(product)
        if matrix == "value":
            heads = {"layer": f"{name}.attention", "groups": shape.heads}
            scores = Operation(**heads, kind="dynamic_matmul", function="query_key", m=tokens, k=size, n=tokens)
            mixed = Operation(**heads, kind="dynamic_matmul", function="attention_value", m=tokens, k=tokens, n=size)
            softmax = Operation(layer=f"{name}.attention", kind="softmax", elements=shape.heads * tokens**2)
            products += [scores, softmax, mixed]
        elif matrix == "up":
            products.append(Operation(layer=f"{name}.activation", kind="activation", elements=tokens * shape.inner))
        elif matrix in ("attention_output", "down"):
            products.append(Operation(layer=f"{name}.{matrix}_norm", kind="norm", elements=tokens * shape.hidden))
    return products
