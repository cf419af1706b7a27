"""What the tests share: one matrix of devices, converters and encodings; a new one is one line here."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # tests never reach for the network
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # busy machines: threads that wait do not spin

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from cimphony.chip import CrossbarUnit, load_chip

MEASURED = [
    {"target": 1e-6, "mean": 1.3e-6, "sd": 0.2e-6, "read": 0.05e-6},
    {"target": 8e-6, "mean": 8.2e-6, "sd": 0.9e-6, "read": 0.1e-6},
    {"target": 25e-6, "mean": 24e-6, "sd": 0.7e-6, "read": 0.3e-6},
]
DEVICES = {
    "ideal": {"kind": "ideal"},
    "gaussian-multiplicative": {"kind": "gaussian", "multiplicative": 0.05},
    "gaussian-additive": {"kind": "gaussian", "additive": 0.05, "read": 0.02},
    "pcm": {"kind": "pcm"},
    "rram": {"kind": "rram"},
    "log-linear": {"kind": "log_linear", "scale": 20.0},
    "measured": {"kind": "measured", "levels": MEASURED, "drift": {"exponent": 0.03, "spread": 0.01}},
    "stuck": {"kind": "gaussian", "multiplicative": 0.02, "stuck": {"off": 0.02, "on": 0.01}},
}
ENCODINGS = {
    "twos-complement": {"weights": "twos_complement"},
    "offset": {"weights": "offset"},
    "offset-flipped": {"weights": "offset", "flip": True},
    "twos-complement-flipped": {"weights": "twos_complement", "flip": True},
    "signed-digits": {"weights": "signed_digits"},
    "differential": {"weights": "differential"},
    "differential-residual": {"weights": "differential_residual"},
    "differential-digital": {"weights": "differential", "subtract": "digital"},
}
CONVERTERS = {
    "none": None,
    "6-bit-level": {"bits": 6, "range": "level"},
    "7-bit-full-scale": {"bits": 7, "range": "full_scale"},
    "8-bit-calibrated": {"bits": 8, "range": "calibrated"},
}
CODINGS = {
    "bit-serial": {"coding": "bit_serial"},
    "multi-bit": {"coding": "multi_bit", "slice_bits": 3},
    "pulse-width": {"coding": "pulse_width"},
}
CELL_BITS = (1, 2, 3, 4)


def unit(
    device: str = "ideal",
    encoding: str = "offset",
    converter: str = "none",
    coding: str = "bit-serial",
    cell_bits: int = 2,
    rows: int = 64,
) -> CrossbarUnit:
    """A crossbar unit from the names of the matrix."""
    chip = load_chip("hyflexpim").replace(
        {
            "units.analog.rows": rows,
            "units.analog.cell": {"bits": cell_bits, "device": DEVICES[device]},
            "units.analog.encoding": {"bits": 8, **ENCODINGS[encoding]},
            "units.analog.input": {"bits": 8, **CODINGS[coding]},
            "units.analog.adc": CONVERTERS[converter],
        }
    )
    found = chip.units["analog"]
    assert isinstance(found, CrossbarUnit)
    return found


def integers(*shape: int, seed: int = 0, low: int = -127, high: int = 127) -> torch.Tensor:
    """Random integers, int64."""
    return torch.randint(low, high + 1, shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small products on busy machines are faster on one thread; global random state must stay untouched."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    state = torch.random.get_rng_state()
    torch.manual_seed(1234)
    yield
    torch.random.set_rng_state(state)
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's chromium; skipped with a message where it is missing."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("Debian's chromium is not installed: apt-get install chromium")
    flags = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run")
    quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync")
    with api.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=chromium, args=[*flags, *quiet])
        yield opened
        opened.close()
