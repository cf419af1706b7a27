"""Every noise has the declared mean and deviation, at its own moment, and nothing else moves."""

import pytest
import torch

from cimphony.chip import GainCellNoise
from cimphony.circuits.gain_cell_noise import Draws
from tests.gain_cell.models import unit

HEADS, FEATURES, TOKENS, TEXTS = 4, 32, 40, 5


def draws(first: int = 0, tokens: int = TOKENS, texts: int = TEXTS, seed: int = 0, **noise: float) -> Draws:
    texts_of = range(texts)
    return Draws(unit(), GainCellNoise(**noise), seed, "layer", HEADS, FEATURES, texts_of, first, tokens)


def check(errors: torch.Tensor, deviation: float) -> None:
    """Five standard errors either side."""
    count = errors.numel()
    assert abs(float(errors.mean())) < 5 * deviation / count**0.5
    assert abs(float(errors.std()) / deviation - 1) < 5 / (2 * count) ** 0.5


def test_cells_differ_by_gain_and_offset_for_good() -> None:
    found = draws(gain=0.05, offset=2e-7).cells("key", torch.arange(1024))
    assert found is not None
    check(found[0], 0.05)
    check(found[1], 2e-7)
    later = draws(first=7, gain=0.05, offset=2e-7).cells("key", torch.arange(100, 200))
    assert later is not None
    assert torch.equal(later[0], found[0][:, 100:200])
    assert draws(read=1.0).cells("key", torch.arange(4)) is None


def test_a_comparators_zero_is_fixed() -> None:
    zeros = torch.zeros(TEXTS, HEADS, TOKENS, 1024, dtype=torch.float64)
    found = draws(comparator=1e-6).score_noise(zeros, torch.arange(1024))
    check(found[0, :, 0], 1e-6)
    assert torch.equal(found, found[:1, :, :1].expand_as(found))
    tile = draws(comparator=1e-6).readout_noise(torch.zeros(TEXTS, HEADS, TOKENS, FEATURES, dtype=torch.float64), 3)
    assert torch.equal(tile, tile[:1, :, :1].expand_as(tile))
    assert tile.abs().max() > 0


@pytest.mark.parametrize("kind", ["write", "read", "read value"])
def test_fresh_noise(kind: str) -> None:
    given = draws(**{kind.split()[0]: 3e-6})
    zeros = torch.zeros(TEXTS, HEADS, TOKENS, FEATURES, dtype=torch.float64)
    if kind == "write":
        found = given.write(zeros, "key")
    elif kind == "read":
        found = given.score_noise(zeros, torch.arange(FEATURES))
    else:
        found = given.readout_noise(zeros, 0)
    check(found, 3e-6)
    assert found.flatten().unique().numel() > 0.9 * found.numel()


def test_jitter_belongs_to_pulses() -> None:
    pulses = torch.full((TEXTS, HEADS, TOKENS, FEATURES), 0.5, dtype=torch.float64)
    pulses[..., 0] = 0.0
    found = draws(jitter=0.15e-9).jitter(pulses, "query")
    check(found[..., 1:] - 0.5, 0.01)
    assert (found[..., 0] == 0).all()


def test_a_token_has_its_numbers_wherever_it_is_read() -> None:
    zeros = torch.zeros(TEXTS, HEADS, TOKENS, FEATURES, dtype=torch.float64)
    whole = draws(write=1.0).write(zeros, "key")
    part = draws(first=11, tokens=3, write=1.0).write(zeros[:, :, :3], "key")
    assert torch.equal(part, whole[:, :, 11:14])
    alone = draws(texts=2, write=1.0).write(zeros[:2], "key")
    assert torch.equal(alone, whole[:2])
    assert not torch.equal(draws(seed=1, write=1.0).write(zeros, "key"), whole)
    assert not torch.equal(draws(write=1.0).write(zeros, "value"), whole)
