"""HaLoRA's claims: costs from adapters as PEFT adds them, trends from records alone, verdicts that can go wrong."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import cimphony as cim
from cimphony.errors import StateError
from cimphony.papers import halora
from cimphony.papers.claims import measure
from cimphony.record import Record


def study(**means: float) -> Record:
    rows = [{"variant": name, "level": "0.1", "chips": 2, "mean": mean, "sd": mean / 10, "min": mean,
             "max": mean} for name, mean in means.items()]  # fmt: skip
    return Record(kind="study", title="made up", created="", results={"rows": rows})


def test_adapters_added_to_a_workload_are_those_that_peft_adds() -> None:
    peft = pytest.importorskip("peft")
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=40, num_key_value_heads=1, **sizes))
    ours = halora.with_adapters(cim.trace(model, prompt=6, new_tokens=2))
    options = peft.LoraConfig(r=halora.RANK, target_modules=[*halora.TARGETS])
    theirs = cim.trace(peft.get_peft_model(model, options), prompt=6, new_tokens=2)

    def products(work: cim.workload.Workload) -> list[tuple[object, ...]]:
        names = [one.layer.removeprefix("base_model.model.").replace(".base_layer", "") for one in work.operations]
        return [
            (name, one.kind, one.phase, one.m, one.k, one.n, one.repeat)
            for name, one in zip(names, work.operations, strict=True)
            if one.weights
        ]

    assert products(ours) == products(theirs)


def test_trends_come_from_records_and_may_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = study(LoRA=10.0, noise=8.0, HaLoRA=7.0), study(LoRA=10.0, noise=8.0, HaLoRA=9.0)
    for found, verdict in (([good], "reproduced"), ([bad], "not reproduced"), ([], "not derivable")):
        monkeypatch.setattr(halora, "studies", lambda found=found: found)
        (regulariser,) = measure([one for one in halora.claims() if one.id == "regulariser"])
        assert regulariser.verdict == verdict
    assert regulariser.claim.note.endswith("needs the records of papers/halora_study.py, in a checkout")
    monkeypatch.setattr(halora, "studies", lambda: [good, bad])
    assert halora.ratio("0.1", "HaLoRA", "LoRA") == pytest.approx((0.7 * 0.9) ** 0.5)
    with pytest.raises(StateError, match="halora_study"):
        halora.ratio("0", "HaLoRA", "LoRA")


def test_record_says_what_is_known_and_what_is_not() -> None:
    found = halora.record()
    rows = {row["id"]: row for row in found.results["claims"]}
    assert rows["bound"]["ours"] <= 1
    assert rows["adapter-share"]["ours"] == pytest.approx(100 * 1_900_544 / 1_235_814_400)  # by hand
    assert all(rows[name]["verdict"] == "not derivable" for name in ("score", "gain", "size"))
    shares = {row["assumption"]: row["energy, % of an A100"] for row in found.results["sensitivity"]}
    assert shares["as described"] == pytest.approx(rows["energy"]["ours"])
    assert shares["everything in RRAM stored twice"] > 1.9 * shares["as described"]
    assert shares["new tokens alone"] < shares["as described"] < shares["prompt alone"]
