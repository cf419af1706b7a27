"""Papers: their claims as data, and how each is measured here. One file per paper."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from cimphony.errors import DataError
from cimphony.papers import gain_cell_attention, hyflexpim, macros
from cimphony.record import Record

_PAPERS = {"gain-cell-attention": gain_cell_attention.record, "hyflexpim": hyflexpim.record, "macros": macros.record}


def _later(module: str) -> Callable[[], Record]:
    """Papers whose measures need torch are imported when they are asked for."""
    return lambda: import_module(f"cimphony.papers.{module}").record()


_PAPERS |= {
    "bwma": _later("bwma"),
    "halora": _later("halora"),
    "llm-reasoning": _later("llm_reasoning"),
    "nl-dpe": _later("nl_dpe"),
    "quad-inr": _later("quad_inr"),
}


def paper_names() -> list[str]:
    """Names that `reproduce` takes."""
    return sorted(_PAPERS)


def reproduce(paper: str, claims: str | None = None, records: Path | None = None) -> Record:
    """Measure every claim of a paper; a record with claim, paper, ours, ratio and verdict.

    Args:
        claims: another set of claims than the paper's usual one: "accuracy" of hyflexpim.
        records: folder of the experiments that such claims are held to; None: papers/results of this checkout.

    Raises DataError for a paper, claims or records that are not here.
    """
    if paper not in _PAPERS:
        raise DataError(f"paper {paper!r} is not here; choose one of {', '.join(paper_names())}")
    if claims is None:
        return _PAPERS[paper]()
    if (paper, claims) != ("hyflexpim", "accuracy"):
        raise DataError(f"claims = {claims!r} is not allowed for {paper}; leave it out, or take accuracy of hyflexpim")
    return import_module("cimphony.papers.hyflexpim_measured").record(records)
