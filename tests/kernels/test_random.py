"""The compiled generator makes the integers of the definition."""

import numpy as np
import pytest

from cimphony import native
from cimphony.random import Stream, normal_from_words, normal_table, philox

pytestmark = pytest.mark.skipif(native.library() is None, reason="no compiled kernels")


def defined_words(stream: Stream, start: int, count: int) -> np.ndarray:
    blocks = np.arange(start // 4, (start + count + 3) // 4, dtype=np.uint64)
    return philox(blocks, stream.key).reshape(-1)[start % 4 :][:count]


@pytest.mark.parametrize("isa", native.available())
@pytest.mark.parametrize(("start", "count"), [(0, 1), (1, 2), (3, 300), (2**34 - 5, 129), (7, 5000)])
def test_words_and_normals(isa, start: int, count: int) -> None:
    stream = Stream(11, "layer", "programming")
    words = defined_words(stream, start, count)
    library = native.library(isa)
    assert library is not None
    value, difference = normal_table()
    made = np.full((2, count + 1), -1, np.int32)
    library.cim_random(*stream.key, start, count, None, None, made[0].ctypes.data)
    library.cim_random(*stream.key, start, count, value.ctypes.data, difference.ctypes.data, made[1].ctypes.data)
    assert np.array_equal(made[0, :-1].view(np.uint32), words)
    assert np.array_equal(made[1, :-1], normal_from_words(words))
    assert (made[:, -1] == -1).all()  # nothing is written past the end


def test_the_stream_uses_it() -> None:
    stream = Stream(3, "layer", "read 0")
    assert np.array_equal(stream.words(5, 1000), defined_words(stream, 5, 1000))
    assert np.array_equal(stream.normal(5, 1000), normal_from_words(defined_words(stream, 5, 1000)))
    assert np.array_equal(stream.normal(5, 10), stream.normal(0, 1000)[5:15])


def test_tails_and_extremes_of_the_inverse() -> None:
    """Every octave of the tail and both signs, through words chosen for it."""
    library = native.library()
    assert library is not None
    stream = Stream(1, "layer", "tails")
    drawn = stream.normal(0, 1 << 20)
    assert np.array_equal(drawn, normal_from_words(defined_words(stream, 0, 1 << 20)))
    assert abs(drawn).max() > 4.5 * 2**16
