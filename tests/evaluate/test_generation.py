"""Generation on tasks with an answer: modes, statuses, seeded samples, chips, and what bad files are told."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from cimphony.chip import load_chip
from cimphony.errors import DataError
from cimphony.evaluate import generation
from cimphony.evaluate.generation import Sampling, answer, calibration, encode_prompt, evaluate_generation
from cimphony.evaluate.tasks import Question, Task, load_task, right
from tests.evaluate.words import WORDS, model, tokenizer

SHOTS = (Question("a", "b", "<think> c </think> b"), Question("b", "c"))
TASK = Task("letters", (Question("a b", "c"), Question("d", "e"), Question("e f g", "h")), SHOTS, max_new_tokens=8)


def words(ids):
    return " ".join(WORDS[at] for at in ids)


def scripted(monkeypatch, *outputs):
    """A model whose outputs are given as text."""
    rows = [[WORDS.index(word) for word in text.split()] for text in outputs]
    width = max(map(len, rows))
    padded = [row + [0] * (width - len(row)) for row in rows]
    monkeypatch.setattr(generation, "_written", lambda *given: [padded[at] for at in given[5]])
    return model()


def test_prompts_of_every_mode():
    last = TASK.questions[0]
    assert words(encode_prompt(tokenizer(), TASK.with_shots(0), last, "direct")) == "[Q] a b [A] <think> </think>"
    assert words(encode_prompt(tokenizer(), TASK.with_shots(0), last, "thinking")) == "[Q] a b [A]"
    two = words(encode_prompt(tokenizer(), TASK.with_shots(2), last, "thinking"))
    assert two == "[Q] a [A] <think> c </think> b [Q] b [A] c [Q] a b [A]"
    plain = words(encode_prompt(tokenizer(None), TASK.with_shots(2), last, "direct"))
    assert plain == "a <think> c </think> b b c a b"


def test_right_wrong_malformed_truncated(monkeypatch):
    outputs = ("c <eos>", "a <eos>", "<think> a b")
    found = answer(scripted(monkeypatch, *outputs), tokenizer(), TASK, max_new_tokens=3)
    assert [one.status for one in found.answers] == ["right", "wrong", "truncated"]
    assert [one.tokens for one in found.answers] == [2, 2, 3]
    assert found.scores() == pytest.approx({"accuracy": 1 / 3, "length": 7 / 3, "truncated": 1 / 3, "malformed": 0})
    outputs = ("<think> a </think> c <eos>", "e <eos>", "<think> h </think> <eos>")
    found = answer(scripted(monkeypatch, *outputs), tokenizer(), TASK, mode="thinking")
    assert [one.status for one in found.answers] == ["right", "malformed", "malformed"]
    assert found.answers[0].given == "c"


def test_a_text_that_ends_outputs():
    net, text = model(), tokenizer()
    plain = [one.text.split() for one in answer(net, text, TASK).answers]
    word = plain[0][1]  # said somewhere on the way
    stopped = answer(net, text, replace(TASK, stop=word)).answers
    for before, one in zip(plain, stopped, strict=True):
        assert one.text.split() == (before[: before.index(word)] if word in before else before)
        assert one.tokens == (before.index(word) + 1 if word in before else TASK.max_new_tokens)
        assert (one.status != "truncated") == (word in before)


def test_batches_and_order_do_not_matter():
    one, many = (answer(model(), tokenizer(), TASK, sampling=Sampling(3), batch=size) for size in (1, 3))
    assert one == many
    longer = Task("more", (*TASK.questions, *TASK.questions[:1]), max_new_tokens=8)
    assert answer(model(), tokenizer(), longer, sampling=Sampling(3)).answers[:3] == many.answers
    assert answer(model(), tokenizer(), TASK) == answer(model(), tokenizer(), TASK, batch=1)


def test_samples_are_seeded_and_leave_global_numbers_alone():
    state = torch.get_rng_state()
    texts = [
        [one.text for one in answer(model(), tokenizer(), TASK, sampling=Sampling(seed)).answers] for seed in (0, 0, 1)
    ]
    assert texts[0] == texts[1] != texts[2]
    assert torch.equal(state, torch.get_rng_state())


def test_samples_have_the_models_distribution():
    scores = torch.tensor([[0.0, 1.0, 2.0, -torch.inf]])
    counts = torch.zeros(4)
    for seed in range(2000):
        drawn = generation._Draw(Sampling(seed), [0], 0)(torch.empty(1, 0), scores)
        counts[int(drawn.argmax())] += 1
    expected = scores[0].softmax(0)
    assert counts[3] == 0
    assert torch.allclose(counts / 2000, expected, atol=5 * 0.5 / 2000**0.5)


def test_a_narrow_sample_is_greedy():
    greedy = answer(model(), tokenizer(), TASK)
    assert answer(model(), tokenizer(), TASK, sampling=Sampling(5, top_k=1)) == greedy
    assert answer(model(), tokenizer(), TASK, sampling=Sampling(5, temperature=1e-4)) == greedy
    assert answer(model(), tokenizer(), TASK, sampling=Sampling(5, top_p=1e-6)) == greedy


def test_the_models_own_sampling_settings_do_not_matter():
    net = model()
    greedy = answer(net, tokenizer(), TASK)
    net.generation_config.update(do_sample=True, temperature=0.6, top_p=0.95, top_k=20)
    assert answer(net, tokenizer(), TASK) == greedy
    assert net.generation_config.temperature == 0.6


@pytest.mark.parametrize("mode", ["direct", "thinking"])
def test_a_population(tmp_path, mode):
    path, net, noisy = tmp_path / "run.json", model(), load_chip("pcm-256")
    given = {"seeds": [0, 1], "mode": mode, "shots": 1, "fidelities": ["effective"], "progress": False}
    record = evaluate_generation(net, tokenizer(), TASK, noisy, record_path=path, **given)
    assert record.results["metric"] == f"accuracy on letters, {mode}, 1-shot"
    assert {*record.results["digital_details"]} == {"accuracy", "length", "truncated", "malformed"}
    for point in record.results["points"]:
        assert point["value"] == point["details"]["accuracy"]
    assert record.settings["sampling"] is None
    longer = evaluate_generation(net, tokenizer(), TASK, noisy, record_path=path, **{**given, "seeds": [0, 1, 2]})
    assert longer.results["points"][:2] == record.results["points"]
    assert longer.results["digital_details"] == record.results["digital_details"]
    with pytest.raises(DataError, match=f"was .accuracy on letters, {mode}, 1-shot"):
        evaluate_generation(net, tokenizer(), TASK, noisy, record_path=path, **{**given, "shots": 2})


def test_calibration_sees_questions_with_their_answers():
    (first, *_) = calibration(tokenizer(), TASK)
    assert words(first["input_ids"][0].tolist()) == "[Q] a b [A] <think> </think> c"


def test_numbers_and_texts():
    assert right("1,000", "1000.0")
    assert right(" Paris", "paris")
    assert not right("10", "100")
    assert Task("sum", (), pattern=r"= (\d+)").answer_in("1 + 1 = 2, so 2 + 2 = 4.") == "4"
    assert Task("sum", (), pattern=r"= (\d+)").answer_in("none") is None


def test_a_task_file(tmp_path):
    path = tmp_path / "sums.jsonl"
    lines = [
        {"pattern": r"= (\d+)", "max_new_tokens": 5},
        {"prompt": "1 + 1", "answer": 2},
        {"prompt": "2 + 2", "answer": "4", "worked": "2 + 2 = 4", "shot": True},
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    task = load_task(path)
    assert task == Task("sums", (Question("1 + 1", "2"),), (Question("2 + 2", "4", "2 + 2 = 4"),), r"= (\d+)", 5)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 1: not JSON"),
        ("[1]", "is an object"),
        ('{"prompt": "a"}', "an answer is needed"),
        ('{"prompt": "a", "answer": "b", "anser": 1}', "'anser' is not known; allowed are answer, prompt"),
        ('{"pattern": "("}', "not a regular expression"),
        ('{"pattern": "a"}', "pattern has 0 groups; give it one"),
        ('{"max_new_tokens": 0}', "max_new_tokens = 0"),
        ('{"stop": ""}', "stop = ''; give a text"),
        ('{"pattern": "(a)"}', "has no questions"),
    ],
)
def test_bad_task_files(tmp_path, line, words):
    path = tmp_path / "task.jsonl"
    path.write_text(line)
    with pytest.raises(DataError, match=words.replace("(", "\\(")):
        load_task(path)
    with pytest.raises(DataError, match="cannot be read"):
        load_task(tmp_path / "missing.jsonl")


def test_what_cannot_be_asked():
    with pytest.raises(DataError, match="shots = 3, but task letters has 2"):
        answer(model(), tokenizer(), TASK, shots=3)
    with pytest.raises(DataError, match="this tokenizer has none"):
        answer(model(), tokenizer(None), TASK, mode="thinking")
    with pytest.raises(DataError, match="no switch enable_thinking"):
        answer(model(), tokenizer("{% for m in messages %}{{ m.content }}{% endfor %}"), TASK, mode="thinking")
    with pytest.raises(DataError, match="the model has 12 positions"):
        answer(model(12), tokenizer(), TASK, max_new_tokens=9)
    with pytest.raises(DataError, match="temperature = 0"):
        answer(model(), tokenizer(), TASK, sampling=Sampling(temperature=0))
    assert generation._ends(SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=[1, 2]))) == [1, 2]
