"""Workloads written by hand: the independent count beside what a trace finds."""

from cimphony.workload import Operation, Workload


def transformer(
    layers: int,
    hidden: int,
    inner: int,
    heads: int,
    prompt: int,
    new_tokens: int = 0,
    batch: int = 1,
    kv_heads: int | None = None,
    gated: bool = False,
    vocabulary: int = 0,
    name: str = "transformer",
) -> Workload:
    """A transformer with `heads` query and `kv_heads` key heads; `gated` adds the gate of a Llama layer."""
    size, kv = hidden // heads, (kv_heads or heads) * (hidden // heads)
    matrices = {"attention.q": (hidden, hidden), "attention.k": (hidden, kv), "attention.v": (hidden, kv)}
    after = {"attention.o": (hidden, hidden), "mlp.up": (hidden, inner), "mlp.down": (inner, hidden)}
    if gated:
        after = {"attention.o": (hidden, hidden), "mlp.gate": (hidden, inner), **after}
    operations: list[Operation] = []
    for phase, tokens, repeat in (("prefill", prompt, 1), ("decode", 1, new_tokens)):
        if not repeat:
            continue
        context = prompt if phase == "prefill" else prompt + new_tokens // 2
        rows = tokens * batch

        def add(layer: str, kind: str, phase=phase, repeat=repeat, **shape: object) -> None:
            fields = {"layer": layer, "kind": kind, "phase": phase, "repeat": repeat, **shape}
            operations.append(Operation.model_validate(fields))

        for index in range(layers):
            at = f"model.layers.{index}"
            for matrix, (k, n) in matrices.items():
                add(f"{at}.{matrix}", "static_matmul", m=rows, k=k, n=n)
            groups, values = heads * batch, "attention_value"
            add(f"{at}.attention", "dynamic_matmul", function="query_key", m=tokens, k=size, n=context, groups=groups)
            add(f"{at}.attention", "softmax", elements=groups * tokens * context)
            add(f"{at}.attention", "dynamic_matmul", function=values, m=tokens, k=context, n=size, groups=groups)
            for matrix, (k, n) in after.items():
                add(f"{at}.{matrix}", "static_matmul", m=rows, k=k, n=n)
                if matrix == "mlp.up":
                    add(f"{at}.mlp", "activation", elements=rows * inner)
                if n == hidden:
                    add(f"{at}.{matrix}_norm", "norm", elements=rows * hidden)
                    add(f"{at}.{matrix}_sum", "elementwise", elements=rows * hidden)
        if vocabulary:
            add("embedding", "embedding", elements=rows * hidden)
            add("head", "static_matmul", m=batch, k=hidden, n=vocabulary)
    return Workload(
        model=name,
        operations=operations,
        parameters=layers * sum(k * n for k, n in (matrices | after).values()) + vocabulary * hidden,
        batch=batch,
        prompt=prompt,
        new_tokens=new_tokens,
    )


def bert_large(tokens: int = 128) -> Workload:
    return transformer(24, 1024, 4096, 16, tokens, name="bert-large")


def bert_base(tokens: int = 128) -> Workload:
    return transformer(12, 768, 3072, 12, tokens, name="bert-base")


def gpt2(tokens: int = 128, new_tokens: int = 0) -> Workload:
    return transformer(12, 768, 3072, 12, tokens, new_tokens, vocabulary=50257, name="gpt2")


def llama_1b(tokens: int = 128, new_tokens: int = 0, batch: int = 1) -> Workload:
    return transformer(16, 2048, 8192, 32, tokens, new_tokens, batch, 8, True, 128256, name="llama-3.2-1b")


def llama_70b(tokens: int = 128, new_tokens: int = 0) -> Workload:
    return transformer(80, 8192, 28672, 64, tokens, new_tokens, 1, 8, True, 128256, name="llama-3-70b")


def vit_base() -> Workload:
    return transformer(12, 768, 3072, 12, 197, name="vit-base")
