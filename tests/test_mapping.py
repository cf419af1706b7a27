"""Placement: arrays by hand, capacity, copies."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cimphony.chip import load_chip
from cimphony.errors import CapacityError
from cimphony.mapping import layout, mode_columns, place, place_layer, stored
from cimphony.workload import Operation, Workload


def product(layer: str, m: int, k: int, n: int, **more: object) -> Operation:
    return Operation.model_validate({"layer": layer, "kind": "static_matmul", "m": m, "k": k, "n": n, **more})


def work(*operations: Operation) -> Workload:
    return Workload(model="by hand", operations=list(operations))


ONE_MODE = load_chip("hyflexpim").replace({"units.analog.cell.slc_rate": 1.0, "units.analog.components": {}})


def test_arrays_of_one_matrix_by_hand():
    unit = ONE_MODE.units["analog"]
    layer = place_layer(unit, "q", 1024, 1024)  # 16 blocks of 64 rows, 1024 x 8 slices / 128 columns = 64 blocks
    (region,) = layer.regions
    assert (region.row_blocks, region.column_blocks, layer.arrays) == (16, 64, 1024)
    assert layer.cells == 1024 * 1024 * 8
    odd = place_layer(unit, "odd", 65, 17, groups=3)  # 2 row blocks, 17 x 8 = 136 columns -> 2 blocks
    assert odd.arrays == 2 * 2 * 3
    assert odd.cells == 65 * 17 * 8 * 3


def test_modes_share_arrays_and_split_the_outputs():
    unit = load_chip("hyflexpim").units["analog"]
    assert mode_columns(unit, 1024) == {"slc": 52, "mlc": 972}  # 5 % of 1024 is 51.2, rounded up
    (region,) = place_layer(unit, "q", 1024, 1024).regions
    assert region.cell_columns == 52 * 8 + 972 * 4


def test_modes_by_rank_have_arrays_of_their_own():
    """A factor [512 ranks, 1024 outputs]: 5 % of the ranks, 26 rows, in SLC; the other 486 in MLC."""
    unit = load_chip("hyflexpim").units["analog"]
    slc, mlc = place_layer(unit, "left", 512, 1024, modes_by="row").regions
    assert (slc.rows, slc.outputs, slc.row_blocks, slc.column_blocks) == (26, {"slc": 1024}, 1, 64)
    assert (mlc.rows, mlc.outputs, mlc.row_blocks, mlc.column_blocks) == (486, {"mlc": 1024}, 8, 32)
    by_rank = work(product("0.left", 4, 512, 1024, modes_by="row"))
    assert place(by_rank, load_chip("hyflexpim")).blocks[0].arrays == 64 + 8 * 32


@given(st.integers(1, 900), st.integers(1, 900), st.floats(0, 1))
def test_every_weight_has_its_cells_whichever_side_is_divided(rows: int, outputs: int, rate: float):
    unit = load_chip("hyflexpim").replace({"units.analog.cell.slc_rate": rate}).units["analog"]
    for modes_by in ("column", "row"):
        layer = place_layer(unit, "w", rows, outputs, modes_by=modes_by)
        weights = sum(region.rows * sum(region.outputs.values()) for region in layer.regions)
        assert weights == rows * outputs
        assert layer.cells <= layer.arrays * 64 * 128


def test_layout_shows_every_array_once():
    layers = [product(f"encoder.{index}.{name}", 128, 1024, 1024) for index in range(24) for name in "qkvo"]
    placement = place(work(*layers, product("head", 1, 1024, 9000)), load_chip("hyflexpim"))
    segments = layout(placement)
    assert sum(segment.arrays for segment in segments) == pytest.approx(placement.arrays, abs=1)
    taken: dict[tuple[int, int], int] = {}
    for segment in segments:
        assert segment.chip < placement.chips
        assert segment.start == taken.get((segment.chip, segment.level), 0)  # filled in order, no gap, no overlap
        taken[segment.chip, segment.level] = segment.start + segment.arrays
    assert max(taken.values()) <= placement.per_level
    assert {segment.block for segment in segments} == {*(f"encoder.{index}" for index in range(24)), "head"}


def test_bert_large_fills_24_pus_exactly_when_all_is_slc():
    layers = [
        product(f"encoder.{index}.{name}", 128, k, n)
        for index in range(24)
        for name, k, n in [*((one, 1024, 1024) for one in "qkvo"), ("up", 1024, 4096), ("down", 4096, 1024)]
    ]
    placement = place(work(*layers), ONE_MODE)
    assert placement.arrays == 24 * 24 * 512
    assert (placement.chips, placement.utilisation) == (1, 1.0)
    assert [placement.levels(block) for block in placement.blocks] == [1]
    with pytest.raises(CapacityError, match=r"294,920 arrays .* 8 too many.* 2 chips would do: chips=2"):
        place(work(*layers, product("pooler", 1, 64, 128)), ONE_MODE, chips=1)


def test_llama_layer_needs_the_pus_of_the_published_check():
    names = [("q", 2048, 2048), ("k", 2048, 512), ("v", 2048, 512), ("o", 2048, 2048)]
    names += [("gate", 2048, 8192), ("up", 2048, 8192), ("down", 8192, 2048)]
    layers = [product(f"layers.{index}.{name}", 1, k, n) for index in range(16) for name, k, n in names]
    for rate, pus, whole, chips in ((0.2, 2.9, 3, 2), (1.0, 4.83, 5, 4)):
        chip = ONE_MODE.replace({"units.analog.cell.slc_rate": rate, "units.analog.schedule.copies": "one"})
        placement = place(work(*layers), chip)
        (block,) = placement.blocks
        assert block.arrays / placement.per_level == pytest.approx(pus, rel=0.01)
        assert (placement.levels(block), placement.chips) == (whole, chips)


def test_a_layer_of_both_phases_is_stored_once():
    both = work(product("0.q", 9, 64, 16), product("0.q", 1, 64, 16, phase="decode", repeat=5))
    assert [one.layer for one in stored(both.operations)] == ["0.q"]
    placement = place(both, ONE_MODE)
    assert placement.blocks[0].vectors == 9 + 5
    assert placement.blocks[0].arrays == 1


def test_an_oversized_model_names_the_number_of_chips():
    big = work(product("0.w", 1, 64 * 1000, 16 * 1000))
    with pytest.raises(CapacityError, match=r"by hand does not fit on 2 x hyflexpim.* 4 chips would do: chips=4"):
        place(big, ONE_MODE, chips=2)
    assert place(big, ONE_MODE).chips == 4
    assert place(big, ONE_MODE, chips=5).chips == 5
    with pytest.raises(CapacityError, match=r"chips = 0 is not allowed"):
        place(big, ONE_MODE, chips=0)


def test_gpu_memory_is_a_capacity_too():
    big = work(product("0.w", 1, 400_000, 400_000))  # 160 GB in INT8
    assert place(big, load_chip("gpu-h100")).chips == 2
    with pytest.raises(CapacityError, match="2 chips would do"):
        place(big, load_chip("gpu-h100"), chips=1)


layer_shapes = st.tuples(st.integers(1, 500), st.integers(1, 700), st.integers(1, 700))


@given(st.lists(layer_shapes, min_size=1, max_size=6), st.sampled_from(["one", "whole", "ideal"]), st.integers(1, 3))
def test_copies_fit_and_balance(shapes: list[tuple[int, int, int]], copies: str, repeats: int):
    operations = [product(f"{at}.{again}.w", *shape) for at, shape in enumerate(shapes) for again in range(repeats)]
    chip = ONE_MODE.replace({"units.analog.schedule.copies": copies, "units.analog.count": {"array": 9, "pu": 300}})
    placement = place(work(*operations), chip)
    assert placement.arrays <= placement.capacity * placement.chips * (1 + 1e-9)
    assert sum(block.share * block.repetitions for block in placement.blocks) == pytest.approx(1)
    for block in placement.blocks:
        assert 1 <= block.copies <= max(1, block.vectors)
        assert copies == "ideal" or block.copies == math.floor(block.copies)
        assert copies != "one" or block.copies == 1


def test_whole_copies_go_to_the_slowest_layer_first():
    chip = ONE_MODE.replace({"units.analog.schedule.copies": "whole", "units.analog.count": {"array": 10}})
    slow, quick = product("a", 100, 64, 16), product("b", 10, 64, 16)  # one array each
    copies = {block.block.names[0]: block.copies for block in place(work(slow, quick), chip).blocks}
    assert copies == {"a": 9, "b": 1}
