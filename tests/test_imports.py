"""Importing is quiet, quick and free of side effects; the torch-free part stays torch-free."""

import os
import subprocess
import sys

import pytest

import cimphony

TORCH_FREE = ("chip", "cost", "errors", "mapping", "random", "record", "report", "units", "workload")


def alone(code: str) -> str:
    """What a fresh interpreter prints, standard error included; warnings are errors."""
    command = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def test_import_is_quiet_and_leaves_torch_alone():
    assert alone("import cimphony, sys; assert not {'torch', 'transformers'} & set(sys.modules)") == ""


@pytest.mark.parametrize("name", TORCH_FREE)
def test_torch_free(name):
    assert alone(f"import cimphony.{name}, sys; assert not {{'torch', 'transformers'}} & set(sys.modules)") == ""


def test_import_is_quick():
    printed = alone("import time; start = time.process_time(); import cimphony; print(time.process_time() - start)")
    assert float(printed) < 1.0  # seconds of CPU; 0.2 where this was written


def test_plain_torch_models_need_no_transformers():
    code = """
import sys, torch, cimphony as cim, cimphony.evaluate
from cimphony.nn.trace import trace
assert "torch._dynamo" not in sys.modules  # the compiler, seconds to load
model = torch.nn.Sequential(torch.nn.Linear(8, 4))
trace(model, inputs=(2, 8))
cim.convert_(model, cim.load_chip("hyflexpim"))
with cim.calibrate(model):
    model(torch.ones(2, 8))
model = cim.program_(model)
assert model(torch.ones(2, 8)).shape == (2, 4)
cim.summary(model), cim.restore_(model)
assert "transformers" not in sys.modules
"""
    assert alone(code) == ""


def test_global_random_state_is_untouched():
    code = """
import random, numpy, torch, transformers, rich.style  # rich draws a number when it is imported
state = lambda: (random.getstate(), str(numpy.random.get_state()), torch.random.get_rng_state().tolist())
before = state()
import cimphony, cimphony.nn, cimphony.evaluate, cimphony.cost, cimphony.report, cimphony.cli
assert state() == before
"""
    assert alone(code) == ""


def test_every_public_name_is_there():
    for name in cimphony.__all__:
        assert getattr(cimphony, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'xbar'"):
        _ = cimphony.xbar
