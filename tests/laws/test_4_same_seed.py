"""Law 4: same seed, same bits; another seed, others; nothing else matters."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import cimphony as cim
from cimphony.random import Stream, normal_from_words, philox
from tests.conftest import DEVICES


def build(device: str, fidelity: str = "exact", seed: int = 0) -> nn.Module:
    """Two layers, programmed."""
    generator = torch.Generator().manual_seed(7)
    model = nn.Sequential(nn.Linear(70, 20), nn.ReLU(), nn.Linear(20, 6))
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    chip = cim.load_chip("hyflexpim").replace(
        {"units.analog.cell": {"bits": 2, "device": DEVICES[device]}, "units.analog.fidelity": fidelity}
    )
    cim.convert_(model, chip)
    return cim.program_(model, seed=seed)


def inputs(tokens: int = 8) -> torch.Tensor:
    return torch.randn(tokens, 70, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("fidelity", ["exact", "effective"])
@pytest.mark.parametrize("device", DEVICES)
def test_same_seed_same_bits(device: str, fidelity: str) -> None:
    one, two, other = build(device, fidelity), build(device, fidelity), build(device, fidelity, seed=1)
    x = inputs()
    result = one(x)
    assert torch.equal(result, two(x))
    assert torch.equal(result, other(x)) == (device == "ideal")


@pytest.mark.parametrize("fidelity", ["exact", "effective"])
@pytest.mark.parametrize("device", ["gaussian-additive", "pcm"])  # both have read noise
def test_a_split_batch_reads_the_same(device: str, fidelity: str) -> None:
    one, two = build(device, fidelity), build(device, fidelity)
    x = inputs()
    parts = torch.cat([two[0](x[:3]), two[0](x[3:4]), two[0](x[4:])])
    torch.testing.assert_close(one[0](x), parts, rtol=1e-6, atol=1e-5 if fidelity == "effective" else 0)


def test_read_noise_is_fresh_every_read() -> None:
    model = build("gaussian-additive")
    x = inputs()
    assert not torch.equal(model(x), model(x))
    cim.program_(model, seed=0)
    first = model(x)
    cim.program_(model, seed=0)
    assert torch.equal(first, model(x))


def test_order_and_copies_do_not_matter() -> None:
    model = build("rram")
    x = inputs()
    twin = copy.deepcopy(model)
    expected = model(x)
    build("rram", seed=5)(x)
    assert torch.equal(twin(x), expected)
    cim.age_(model, seconds=86_400)
    aged = model(x)
    cim.program_(model, seed=9)
    cim.program_(model, seed=0)
    assert torch.equal(model(x), expected)
    cim.age_(model, seconds=10)
    cim.age_(model, seconds=86_400)
    assert torch.equal(model(x), aged)
    assert not torch.equal(aged, expected)


def test_global_random_state_is_untouched() -> None:
    model = cim.restore_(build("pcm"))
    torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    cim.convert_(model, cim.load_chip("pcm-256"))
    with cim.calibrate(model):
        model(inputs())
    cim.age_(cim.program_(model, seed=3), seconds=60)
    model(inputs())
    assert torch.equal(torch_state, torch.random.get_rng_state())
    assert (numpy_state == np.random.get_state()[1]).all()


def test_philox_known_answers() -> None:
    """Vectors published with Random123 (kat_vectors, philox4x32-10)."""
    zero = philox(np.array([0], np.uint64), (0, 0))[0]
    ones = philox(np.array([2**64 - 1], np.uint64), (2**32 - 1, 2**32 - 1), high=2**64 - 1)[0]
    pi = philox(np.array([0x85A308D3243F6A88], np.uint64), (0xA4093822, 0x299F31D0), high=0x0370734413198A2E)[0]
    assert [hex(word) for word in zero] == ["0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"]
    assert [hex(word) for word in ones] == ["0x408f276d", "0x41c83b0e", "0xa20bc7c6", "0x6d5451fd"]
    assert [hex(word) for word in pi] == ["0xd16cfe09", "0x94fdcceb", "0x5001e420", "0x24126ea1"]


@pytest.mark.parametrize("start", [0, 1, 3, 4, 1_000_003])
def test_a_stream_is_addressed_by_index(start: int) -> None:
    stream = Stream(3, "layer", "programming")
    whole = stream.normal(0, start + 50) if start < 100 else None
    part = stream.normal(start, 50)
    again = np.concatenate([stream.normal(start, 7), stream.normal(start + 7, 43)])
    assert (part == again).all()
    assert whole is None or (whole[start:] == part).all()


def test_normal_numbers_follow_the_normal_distribution() -> None:
    """The integer inverse against the exact one, over the whole range of words; largest error 0.003 sigma."""
    from statistics import NormalDist

    words = np.concatenate([np.arange(0, 2**31, 2**31 // 4001), 2 ** np.arange(31), [2**31 - 1]]).astype(np.uint32)
    expected = np.array([-NormalDist().inv_cdf((word + 0.5) / 2.0**32) for word in words.tolist()])
    numbers = normal_from_words(words) / 2.0**16
    assert np.abs(numbers - expected).max() < 0.003
    assert (normal_from_words(words | np.uint32(2**31)) == -normal_from_words(words)).all()


def test_moments_of_a_million_normal_numbers() -> None:
    z = Stream(0, "moments", "test").normal(0, 1_000_000) / 2.0**16
    assert abs(z.mean()) < 5 / 1000  # five standard errors
    assert abs(z.std() - 1) < 5 / np.sqrt(2e6)
    assert abs((z**4).mean() - 3) < 5 * np.sqrt(96 / 1e6)
    assert z.max() > 4.2
