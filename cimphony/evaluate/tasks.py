"""Tasks with an answer that can be checked: prompts, answers, demonstrations, and the pattern of an answer."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cimphony.errors import DataError
from cimphony.evaluate.data import json_lines, read_file

LAST_WORD = r"(\S+)\s*$"
_FIELDS = {"prompt", "answer", "worked", "shot"}
_SETTINGS = {"pattern", "max_new_tokens", "stop"}


@dataclass(frozen=True)
class Question:
    """What is asked, the answer, and for a demonstration what an assistant would write."""

    prompt: str
    answer: str
    worked: str = ""  # empty: the answer


@dataclass(frozen=True)
class Task:
    """Questions of one kind.

    Args:
        pattern: a regular expression with one group; its last match in the output is the model's answer.
        shots: demonstrations, asked before every question in the order given; `first` chooses how many.
        max_new_tokens: an output of more tokens is cut off and counts as wrong.
        stop: a text that ends an output, for models that do not end by themselves; None: only their own end does.
        unasked: further questions, which are not asked; ranges are learnt from them.
    """

    name: str
    questions: tuple[Question, ...]
    shots: tuple[Question, ...] = ()
    pattern: str = LAST_WORD
    max_new_tokens: int = 256
    stop: str | None = None
    unasked: tuple[Question, ...] = ()

    def answer_in(self, text: str) -> str | None:
        """The answer that a text gives, None where it gives none."""
        found = list(re.finditer(self.pattern, text))
        return found[-1].group(1).strip() if found else None

    def head(self, count: int | None) -> "Task":
        """The task with its first questions alone."""
        questions = (*self.questions, *self.unasked)
        return self if count is None else replace(self, questions=questions[:count], unasked=questions[count:])

    def with_shots(self, count: int) -> "Task":
        """The task with its first demonstrations alone."""
        if not 0 <= count <= len(self.shots):
            raise DataError(
                f"shots = {count}, but task {self.name} has {len(self.shots)} demonstrations: lines with "
                '"shot": true; choose 0 to that'
            )
        return replace(self, shots=self.shots[:count])


def right(given: str, wanted: str) -> bool:
    """Whether two answers are the same: as numbers where both are, else as text whatever the case."""
    try:
        return float(given.replace(",", "")) == float(wanted.replace(",", ""))
    except ValueError:
        return given.strip().casefold() == wanted.strip().casefold()


def load_task(path: str | Path) -> Task:
    """A task from a JSON-lines file.

    A line is a question, `{"prompt": ..., "answer": ...}`. With `"shot": true` it is a demonstration, and `"worked"`
    is what the assistant writes in it (else the answer alone). A line without a prompt has settings: `pattern`,
    `max_new_tokens` and `stop`, as in `Task`.

    Raises DataError that names the line where a file is not of this form.
    """
    settings: dict[str, Any] = {}
    asked: dict[bool, list[Question]] = {True: [], False: []}
    for row in (_row(*line) for line in json_lines(read_file(Path(path), "task", "a file of JSON lines"), Path(path))):
        if "prompt" not in row:
            settings |= row
        else:
            asked[row.get("shot", False)].append(Question(row["prompt"], row["answer"], row.get("worked", "")))
    if not asked[False]:
        raise DataError(f'task {str(path)!r} has no questions; a line is {{"prompt": ..., "answer": ...}}')
    return Task(Path(path).stem, tuple(asked[False]), tuple(asked[True]), **settings)


def _row(row: Any, place: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError(f"{place}: a line is an object with prompt and answer")
    allowed = _FIELDS if "prompt" in row else _SETTINGS
    if unknown := {*row} - allowed:
        raise DataError(f"{place}: field {min(unknown)!r} is not known; allowed are {', '.join(sorted(allowed))}")
    if "prompt" not in row:
        return _settings(row, place)
    if isinstance(row.get("answer"), int | float):
        row["answer"] = str(row["answer"])
    if not all(isinstance(row.get(name, ""), str) for name in ("prompt", "answer", "worked")) or "answer" not in row:
        raise DataError(f"{place}: prompt, answer and worked are texts, and an answer is needed")
    return row


def _settings(row: dict[str, Any], place: str) -> dict[str, Any]:
    try:
        groups = re.compile(row.get("pattern", LAST_WORD)).groups
    except (re.error, TypeError) as error:
        raise DataError(f"{place}: pattern is not a regular expression: {error}") from None
    if groups != 1:
        raise DataError(f"{place}: pattern has {groups} groups; give it one, the answer")
    tokens = row.get("max_new_tokens", 1)
    if not isinstance(tokens, int) or tokens < 1:
        raise DataError(f"{place}: max_new_tokens = {tokens!r}; choose 1 or more")
    if not (isinstance(row.get("stop", " "), str) and row.get("stop", " ")):
        raise DataError(f"{place}: stop = {row['stop']!r}; give a text, or leave it out")
    return row
