"""Law 3: decode(encode(w)) == w, every level fits its cell."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cimphony.chip import Encoding
from cimphony.circuits import decode, encode, quantise_weights
from cimphony.mapping import weight_slices

KINDS = ["twos_complement", "offset", "differential", "differential_residual", "signed_digits"]


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    subtract=st.sampled_from(["analog", "digital"]),
    bits=st.integers(2, 16),
    cell_bits=st.integers(1, 8),
    data=st.data(),
)
def test_round_trip(kind: str, subtract: str, bits: int, cell_bits: int, data: st.DataObject) -> None:
    cell_bits = min(cell_bits, bits - 1)
    subtract = subtract if kind == "differential" else "analog"
    encoding = Encoding.model_validate({"weights": kind, "bits": bits, "subtract": subtract})
    top = 2 ** (bits - 1) - 1
    numbers = data.draw(st.lists(st.integers(-top, top), min_size=1, max_size=20))
    words = torch.tensor(numbers, dtype=torch.float64).view(-1, 1)
    slices = weight_slices(encoding, cell_bits)
    levels = encode(words, slices, encoding)
    for one, level in zip(slices, levels, strict=True):
        assert level.abs().max() <= one.top
        assert one.pair or level.min() >= 0
    assert torch.equal(decode(levels, slices, encoding), words)


@pytest.mark.parametrize("kind", KINDS)
def test_every_word_of_8_bits(kind: str) -> None:
    encoding = Encoding.model_validate({"weights": kind, "bits": 8})
    words = torch.arange(-127.0, 128.0, dtype=torch.float64).view(-1, 1)
    for cell_bits in range(1, 8):
        slices = weight_slices(encoding, cell_bits)
        assert torch.equal(decode(encode(words, slices, encoding), slices, encoding), words)


def test_slices_by_hand() -> None:
    def places(kind: str, cell_bits: int) -> list[int]:
        return [one.place for one in weight_slices(Encoding.model_validate({"weights": kind}), cell_bits)]

    assert places("twos_complement", 1) == [1, 2, 4, 8, 16, 32, 64, -128]
    assert places("twos_complement", 2) == [1, 4, 16, 64]  # top digit with its sign bit inverted
    assert places("offset", 2) == [1, 4, 16, 64]
    assert places("differential", 2) == [1, 4, 16, 64]


@pytest.mark.parametrize("scale", ["tensor", "column"])
def test_quantised_weights_are_within_half_a_step(scale: str) -> None:
    weight = torch.randn(40, 7, dtype=torch.float64) * torch.logspace(-3, 2, 7, dtype=torch.float64)
    integers, step = quantise_weights(weight, Encoding.model_validate({"weights": "offset", "scale": scale}))
    assert integers.abs().max() == 127
    assert ((integers * step - weight).abs() <= step * (0.5 + 1e-9)).all()


@pytest.mark.parametrize("weights", ["offset", "binary"])
def test_a_column_of_zeros_has_the_scale_zero(weights: str) -> None:
    encoding = Encoding.model_validate({"weights": weights, "bits": 1 if weights == "binary" else 8})
    integers, step = quantise_weights(torch.tensor([[0.0, -2.0], [0.0, 2.0]]), encoding)
    assert step[0] == 0
    assert step[1] > 0
    assert (integers[:, 1] * step[1]).tolist() == [-2, 2]
