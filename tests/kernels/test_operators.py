"""The reads as torch operators: schema, fake kernels, `torch.compile`, autocast."""

import pytest
import torch

from cimphony import native
from cimphony.circuits import reference_read
from cimphony.circuits.read import _plan, read, read_codes
from cimphony.kernels import ops
from tests.conftest import integers
from tests.kernels.test_reads import cells_of

pytestmark = pytest.mark.skipif(native.library() is None, reason="no compiled kernels")


def test_operators_are_well_formed() -> None:
    cells, coding = cells_of(70, 9, device="gaussian-multiplicative", converter="6-bit-level")
    run = _plan(cells, coding).runs[0]
    packed = run.cells
    tensors = (*packed.tensors, packed.numbers)
    assert run.code is not None
    torch.library.opcheck(ops._read_tables, (integers(3, 70), *tensors, list(run.code), 8))
    digits = integers(3, 1, 70).to(torch.int16)
    arguments = (digits, *tensors, [1], [0.01, 0.0, 63.0], None, None, [])
    torch.library.opcheck(ops._read_direct, arguments)


@pytest.mark.parametrize("device", ["gaussian-multiplicative", "gaussian-additive", "ideal"])
def test_compiled_graphs_keep_the_read(device: str) -> None:
    cells, coding = cells_of(70, 9, device=device, converter="7-bit-full-scale")
    inputs = integers(4, 70)
    expected = read(inputs, cells, coding, seed=1, first_token=0)  # also lays the cells out
    whole = torch.compile(lambda x: read(x, cells, coding, seed=1, first_token=0) + 1, backend="aot_eager")
    assert torch.equal(whole(inputs), expected + 1)
    torch._dynamo.reset()


def test_autocast_changes_nothing() -> None:
    cells, coding = cells_of(70, 9, device="gaussian-multiplicative", converter="6-bit-level")
    inputs = integers(4, 70)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = read_codes(inputs, cells, coding)
    assert torch.equal(made.long(), reference_read(inputs, cells, coding))
