"""What a trace finds costs the same as the workload written by hand: the same counts on both ways."""

import pytest

from cimphony.chip import load_chip
from cimphony.cost import estimate
from cimphony.nn.trace import trace
from cimphony.workload import Workload
from tests.cost.workloads import bert_base, bert_large, gpt2, llama_1b, vit_base

KINDS = ("static_matmul", "dynamic_matmul", "softmax", "activation")
PAIRS = [
    ("bert-base", {"prompt": 128}, bert_base(128)),
    ("bert-large", {"prompt": 128}, bert_large(128)),
    ("gpt2", {"prompt": 64, "new_tokens": 32}, gpt2(64, 32)),
    ("llama-3.2-1b", {"prompt": 64, "new_tokens": 32}, llama_1b(64, 32)),
    ("vit-base", {}, vit_base()),
]


def layers_only(workload: Workload) -> Workload:
    """Without embeddings, pooler, head and final norm: what the hand-written ones hold in their numbered layers."""
    inside = [one for one in workload.operations if any(part.isdigit() for part in one.layer.split("."))]
    return workload.model_copy(update={"operations": inside})


@pytest.mark.parametrize(("model", "settings", "by_hand"), PAIRS, ids=[pair[0] for pair in PAIRS])
def test_trace_and_hand_agree(model: str, settings: dict[str, int], by_hand: Workload):
    traced, written = layers_only(trace(model, **settings)), layers_only(by_hand)
    for kind in KINDS:
        assert traced.macs(kind) == pytest.approx(
            written.macs(kind), rel=0.003
        )  # mean context of decoding: half a token
    for name in ("hyflexpim", "gpu-h100"):
        chip = load_chip(name)
        one, two = ({row["operation"]: row["energy"] for row in estimate(work, chip).by("operation")}
                    for work in (traced, written))  # fmt: skip
        for kind in KINDS:
            assert one[kind] == pytest.approx(two[kind], rel=0.01), (name, kind)
