"""A paper's claims as data, each with the function that measures it here, and an honest verdict."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml

from cimphony.errors import StateError
from cimphony.record import Record, new_record

_LOG = logging.getLogger(__name__)
Status = Literal["derived", "conditional", "calibrated", "trend", "not derivable"]
Relation = Literal["equal", "at least", "at most"]

RECORDS = Path(__file__).parents[2] / "papers" / "results"  # of our experiments, in a checkout
STATUSES: dict[Status, str] = {
    "derived": "follows from the paper's own numbers; nothing is fitted",
    "conditional": "follows from the paper's numbers together with a calibrated baseline",
    "calibrated": "a number of the model was set from this very claim, which therefore proves nothing",
    "trend": "looked for on other models than the paper's, small ones of our own; only its direction can hold",
    "not derivable": "needs data that the paper does not give",
}


@dataclass(frozen=True)
class Claim:
    """One number a paper states."""

    id: str
    where: str  # section, table or figure
    statement: str  # in our own words
    value: float
    unit: str
    status: Status
    measure: Callable[[], float] | None  # in `unit`; None: not derivable; StateError: not here, and why
    note: str = ""  # the reading, the slip, or why it cannot be derived
    relation: Relation = "equal"
    tolerance: float = 0.05  # relative


@dataclass(frozen=True)
class Verdict:
    """A claim, measured."""

    claim: Claim
    ours: float | None

    @property
    def ratio(self) -> float | None:
        """Ours / paper."""
        return None if self.ours is None or not self.claim.value else self.ours / self.claim.value

    @property
    def verdict(self) -> str:
        """reproduced, close (within three tolerances), not reproduced, by construction, or not derivable."""
        claim, ratio = self.claim, self.ratio
        if ratio is None:
            return "not derivable"
        off = abs(ratio - 1)
        if claim.status == "calibrated" and off <= claim.tolerance:
            return "by construction"
        if claim.relation != "equal":
            holds = ratio >= 1 - claim.tolerance if claim.relation == "at least" else ratio <= 1 + claim.tolerance
            off = 0.0 if holds else math.inf
        if off <= claim.tolerance:
            return "reproduced"
        return "close" if off <= 3 * claim.tolerance else "not reproduced"

    def row(self) -> dict[str, Any]:
        """Plain data for a record or a table."""
        claim = self.claim
        fields = ("id", "where", "statement", "relation", "unit", "status", "note")
        row: dict[str, Any] = {name: getattr(claim, name) for name in fields}
        return row | {"paper": claim.value, "ours": self.ours, "ratio": self.ratio, "verdict": self.verdict}


def load_claims(
    paper: str,
    functions: Sequence[Callable[..., float]],
    about: object = None,
    names: Mapping[str, Any] | None = None,
) -> list[Claim]:
    """The claims in a paper's YAML file.

    `measure` names one of the functions and its arguments. What the claims are `about`, a chip or the folder of our
    experiments, comes first, where it is given. Arguments found in `names` stand for what they name there.
    """
    known, first = {function.__name__: function for function in functions}, () if about is None else (about,)
    stands = names or {}

    def bound(call: dict[str, Any] | None) -> Callable[[], float] | None:
        if call is None:
            return None
        named = {key: stands.get(value, value) if isinstance(value, str) else value for key, value in call.items()}
        return partial(known[named.pop("function")], *first, **named)

    rows = yaml.safe_load((files("cimphony.papers") / f"{paper}.yaml").read_text(encoding="utf-8"))
    return [Claim(**{**row, "measure": bound(row.get("measure"))}) for row in rows]


def measure(claims: Sequence[Claim]) -> list[Verdict]:
    """Every claim measured, in order; one that lacks a program or a record here is not derivable, and says why."""
    verdicts = list[Verdict]()
    for at, claim in enumerate(claims, 1):
        _LOG.info("claim %d of %d: %s", at, len(claims), claim.statement)
        verdicts.append(_measured(claim))
    return verdicts


def _measured(claim: Claim) -> Verdict:
    try:
        return Verdict(claim, None if claim.measure is None else float(claim.measure()))
    except StateError as missing:
        note = "; ".join(filter(None, (claim.note, str(missing))))
        return Verdict(replace(claim, status="not derivable", note=note), None)


def rms_error(verdicts: Sequence[Verdict]) -> float:
    """Root mean square of ln(ours / paper) over claims that could be measured; 0 for none."""
    logs = [math.log(ratio) for ratio in (verdict.ratio for verdict in verdicts) if ratio]
    return math.sqrt(math.fsum(log**2 for log in logs) / len(logs)) if logs else 0.0


def figure(
    name: str, title: str, axes: tuple[str, str], x: Sequence[Any], lines: Mapping[str, Sequence[float | None]],
    published: Mapping[str, tuple[Any, float]] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """A figure of a paper as plain data: our lines over one x, published points beside them.

    Args:
        axes: what is across and what is up, with units.
        lines: values by name, None where a line has none.
        published: x and y by name.
    """
    series: list[dict[str, Any]] = []
    for line, values in lines.items():
        held = [(at, value) for at, value in zip(x, values, strict=True) if value is not None]
        series += [{"name": line, "x": [at for at, _ in held], "y": [value for _, value in held]}] if held else []
    points = [{"name": point, "x": at, "y": value} for point, (at, value) in (published or {}).items()]
    return {"figure": name, "title": title, "x": axes[0], "y": axes[1], "series": series, "published": points}


def claims_record(
    title: str,
    claims: Sequence[Claim],
    figures: Sequence[dict[str, Any]] = (),
    headline: Sequence[str] = (),
    beside: Mapping[str, Sequence[Claim]] | None = None,
    **fields: Any,
) -> Record:
    """A record of all claims, measured now.

    Results: `claims` (rows), `counts` by verdict, `figures` (redrawn, with published points), `headline` (ids) and
    `headline_rms`, the rms of ln(ours / paper) over those. `beside` are the same claims on variants of the chip; each
    row gets their values by the variant's name.
    """
    began = time.perf_counter()
    verdicts = measure(claims)
    rows = [verdict.row() for verdict in verdicts]
    for name, variant in (beside or {}).items():
        for row, verdict in zip(rows, measure(variant), strict=True):
            row.setdefault("beside", {})[name] = verdict.ours
    counts: dict[str, int] = {}
    for verdict in verdicts:
        counts[verdict.verdict] = counts.get(verdict.verdict, 0) + 1
    chosen = [verdict for verdict in verdicts if verdict.claim.id in headline]
    results = {
        "claims": rows,
        "counts": counts,
        "statuses": dict(STATUSES),
        "headline": list(headline),
        "headline_rms": rms_error(chosen),
        "figures": list(figures),
    }
    return new_record("claims", title, duration=time.perf_counter() - began, results=results, **fields)
