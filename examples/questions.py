"""Questions with an answer, on chips: how often does the embedded model still finish a word of Python's reference?

A task is a list of prompts and answers; the same in a .jsonl file goes to `cimphony run MODEL --tasks FILE`.

    python examples/questions.py
"""

import re
from statistics import fmean

import cimphony as cim
from cimphony.evaluate import load_model
from cimphony.evaluate.generation import evaluate_generation
from cimphony.evaluate.tasks import Question, Task

QUESTIONS, BEFORE, GIVEN = 24, 96, 5  # words; characters before each, and of it


def word_endings(text: str) -> Task:
    """The end of long words, asked with what comes before. A blank ends an answer: the model has no other end."""
    found = [match.start() for match in re.finditer(r"\b[a-z]{9,}\b", text) if match.start() >= BEFORE]
    chosen = found[:: len(found) // QUESTIONS][:QUESTIONS]
    asked = [
        Question(text[at - BEFORE : at + GIVEN], re.match(r"[a-z]+", text[at + GIVEN :]).group())  # type: ignore[union-attr]
        for at in chosen
    ]
    return Task("word endings", tuple(asked), pattern=r"^([a-z]+)", max_new_tokens=16, stop=" ")


def main() -> None:
    model, tokenizer = load_model("demo")
    task = word_endings(bytes(cim.load_text("demo").tolist()).decode())
    record = evaluate_generation(
        model, tokenizer, task, cim.load_chip("pcm-256"),
        seeds=range(3), ages=[0, 86_400], fidelities=["effective"], progress=False,
    )  # fmt: skip
    print(f"digital: {record.results['digital']:.2f} right")
    for group in record.results["groups"]:
        length = fmean(one["details"]["length"] for one in record.results["points"] if one["age"] == group["age"])
        right = f"{group['mean']:.2f} ± {group['sd']:.2f} right over three chips"
        print(f"pcm-256, {group['age']:.0f} s after programming: {right}, {length:.1f} letters each")


if __name__ == "__main__":
    main()
