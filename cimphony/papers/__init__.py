"""Papers: their claims as data, and how each is measured here. One file per paper."""

from importlib import import_module
from pathlib import Path

from cimphony.errors import DataError
from cimphony.record import Record

_PAPERS = ("bwma", "gain-cell-attention", "halora", "hyflexpim", "llm-reasoning", "macros", "nl-dpe", "quad-inr")


def paper_names() -> list[str]:
    """Names that `reproduce` takes."""
    return list(_PAPERS)


def reproduce(paper: str, claims: str | None = None, records: Path | None = None) -> Record:
    """Measure every claim of a paper; a record with claim, paper, ours, ratio and verdict.

    Args:
        claims: another set of claims than the paper's usual one: "accuracy" of hyflexpim.
        records: folder of the experiments that such claims are held to; None: papers/results of this checkout.

    Raises DataError for a paper, claims or records that are not here.
    """
    if paper not in _PAPERS:
        raise DataError(f"paper {paper!r} is not here; choose one of {', '.join(_PAPERS)}")
    if claims is None:  # imported when asked for: some measures need torch
        return import_module(f"cimphony.papers.{paper.replace('-', '_')}").record()
    if (paper, claims) != ("hyflexpim", "accuracy"):
        raise DataError(f"claims = {claims!r} is not allowed for {paper}; leave it out, or take accuracy of hyflexpim")
    return import_module("cimphony.papers.hyflexpim_measured").record(records)
