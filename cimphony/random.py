"""The one random generator: counter-based, so that the same seed is the same chip anywhere.

A draw is a pure function of (seed, name, purpose, index): no state, no order, no global generator.
Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) makes the 32-bit
words; an integer inverse of the normal distribution turns a word into a normal number on a 2^-16 grid.
Everything is integer arithmetic, hence the same bits in numpy, C++ and on a GPU.

The inverse: the top bit of a word is the sign. The other 31 bits are a tail probability
p = (u + 1/2) / 2^32 in (0, 1/2). Octaves of p (a leading-zero count) are cut into 32 segments, each
interpolated linearly, so the tail stays fine out to 6.2 sigma.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from cimphony import native

NORMAL_BITS = 16  # a normal number is an integer times 2^-16
_SEGMENT_BITS = 5  # segments per octave of the tail probability
_OCTAVES = 32
_CHUNK = 1 << 18  # words made at a time: keeps the temporaries in cache
_COMPILED_FROM = 256  # numbers from which the compiled routine, which makes the same ones, is worth a call

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


@dataclass(frozen=True)
class Stream:
    """One endless sequence of random words, addressed by index.

    Args:
        seed: the manufactured chip, any integer from 0 to 2^63 - 1.
        name: the layer.
        purpose: what the numbers are for (`"programming"`, `"stuck"`, `"read"`, ...).
    """

    seed: int
    name: str
    purpose: str

    @property
    def key(self) -> tuple[int, int]:
        """The two 32-bit key words."""
        text = f"{self.seed}\0{self.name}\0{self.purpose}".encode()
        digest = hashlib.blake2b(text, digest_size=8).digest()
        return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")

    def words(self, start: int, count: int) -> NDArray[np.uint32]:
        """Words `start` to `start + count - 1`. Word i is lane i % 4 of the Philox block with counter i // 4."""
        if count >= _COMPILED_FROM and (fast := native.library()) is not None:
            drawn = np.empty(count, np.uint32)
            fast.cim_random(*self.key, start, count, None, None, drawn.ctypes.data)
            return drawn
        first, last = start // 4, -(-(start + count) // 4)
        blocks = [
            philox(np.arange(low, min(low + _CHUNK, last), dtype=np.uint64), self.key)
            for low in range(first, last, _CHUNK)
        ]
        flat = np.concatenate(blocks).reshape(-1) if blocks else np.empty(0, np.uint32)
        return flat[start - 4 * first :][:count]

    def normal(self, start: int, count: int) -> NDArray[np.int32]:
        """Standard normal numbers times 2^16."""
        if count >= _COMPILED_FROM and (fast := native.library()) is not None:
            value, difference = normal_table()
            drawn = np.empty(count, np.int32)
            fast.cim_random(*self.key, start, count, value.ctypes.data, difference.ctypes.data, drawn.ctypes.data)
            return drawn
        return normal_from_words(self.words(start, count))

    def uniform(self, start: int, count: int) -> NDArray[np.float64]:
        """Uniform numbers in (0, 1)."""
        return (self.words(start, count).astype(np.float64) + 0.5) * 2.0**-32


def philox(counter: NDArray[np.uint64], key: tuple[int, int], rounds: int = 10, high: int = 0) -> NDArray[np.uint32]:
    """Philox4x32 blocks [n, 4] for 64-bit counters [n]; `high` is the upper half of the 128-bit counter."""
    c0, c1 = counter & _LOW, counter >> _32
    c2 = np.full_like(counter, high & 0xFFFFFFFF)
    c3 = np.full_like(counter, high >> 32)
    k0, k1 = key
    for _ in range(rounds):
        p0, p1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ np.uint64(k0), p1 & _LOW, (p0 >> _32) ^ c3 ^ np.uint64(k1), p0 & _LOW
        k0, k1 = (k0 + _W0) & 0xFFFFFFFF, (k1 + _W1) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


@cache
def normal_table() -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(value, difference) at the 32 x 32 segment borders, in units of 2^-16; entry = octave * 32 + segment."""
    border = np.empty((_OCTAVES, (1 << _SEGMENT_BITS) + 1))
    for octave in range(_OCTAVES):
        for segment in range(border.shape[1]):
            p = 2.0 ** -(octave + 2) * (1 + segment / (1 << _SEGMENT_BITS))
            border[octave, segment] = -NormalDist().inv_cdf(min(p, 0.5))
    grid = np.round(border * (1 << NORMAL_BITS)).astype(np.int32)
    return grid[:, :-1].reshape(-1).copy(), np.diff(grid, axis=1).reshape(-1).copy()


def normal_from_words(words: NDArray[np.uint32]) -> NDArray[np.int32]:
    """Normal numbers times 2^16, one for each 32-bit word."""
    value, difference = normal_table()
    # 2u + 1 is odd, so its leading bit is the octave and the rest, from the left, the place inside it
    doubled = ((words & np.uint32(0x7FFFFFFF)).astype(np.uint64) << np.uint64(1)) | np.uint64(1)
    exponent = np.frexp(doubled.astype(np.float64))[1] - 1  # position of the leading bit, 0 to 31
    mantissa = (doubled << (np.uint64(31) - exponent.astype(np.uint64))) & np.uint64(0x7FFFFFFF)  # 31 bits
    entry = (31 - exponent) * (1 << _SEGMENT_BITS) + (mantissa >> np.uint64(31 - _SEGMENT_BITS)).astype(np.int64)
    fraction = (mantissa >> np.uint64(10)).astype(np.int64) & 0xFFFF  # the next 16 bits
    magnitude = value[entry] + ((difference[entry].astype(np.int64) * fraction + 0x8000) >> 16)
    return np.where(words >> np.uint32(31), -magnitude, magnitude).astype(np.int32)
