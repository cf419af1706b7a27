"""The estimate: counts by hand, conservation, published anchors, errors."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cimphony.chip import build_chip, chip_names, load_chip
from cimphony.cost import estimate
from cimphony.cost.crossbar import on_crossbar
from cimphony.cost.report import VIEWS
from cimphony.errors import ChipError, DataError
from cimphony.mapping import layout, place_layer
from cimphony.workload import Operation, Workload
from tests.cost.workloads import bert_base, bert_large, gpt2, llama_1b, llama_70b, transformer, vit_base

HYFLEX = load_chip("hyflexpim")
SLC = HYFLEX.replace({"units.analog.cell.slc_rate": 1.0})
MLC = HYFLEX.replace({"units.analog.cell.slc_rate": 0.0})


def product(m: int, k: int, n: int, layer: str = "0.w") -> Workload:
    return Workload(model="one", operations=[Operation(layer=layer, kind="static_matmul", m=m, k=k, n=n)])


def share(report, name: str) -> float:
    return sum(row["energy"] for row in report.by("component") if row["component"].startswith(name))


# counts


def test_a_gpu_says_how_many_launches_it_does_not_count():
    two = Workload(model="two", operations=[
        Operation(layer="0.w", kind="static_matmul", m=1, k=8, n=8, repeat=3),
        Operation(layer="0.s", kind="softmax", elements=8),
        Operation(layer="1.w", kind="dynamic_matmul", m=1, k=8, n=8),
    ])  # fmt: skip
    said = [one for one in estimate(two, load_chip("gpu-h100")).assumptions if "without delay" in one]
    assert said == [
        "gpu: 4 products a request are started without delay; a GPU takes microseconds to launch each of their "
        "kernels, so small models look faster than they run"
    ]
    assert not [one for one in estimate(two, load_chip("nl-dpe-adc")).assumptions if "without delay" in one]


def test_actions_of_one_product_by_hand():
    unit = HYFLEX.units["analog"]
    one = Operation(layer="w", kind="static_matmul", m=3, k=100, n=40, repeat=2)
    counts = on_crossbar(unit, one, place_layer(unit, "w", 100, 40)).counts
    # 100 rows: 2 blocks of 64. 5 % of 40 outputs: 2 SLC with 8 slices, 38 MLC with 4: 168 columns, 2 blocks of 128.
    reads = 3 * 2 * 8  # inputs x repeats x bits
    assert counts["read"] == reads * 4
    assert counts["cell"] == reads * 100 * 168
    assert counts["drive"] == reads * 100 * 2
    assert counts["convert_slc"] == reads * 2 * 16
    assert counts["convert_mlc"] == reads * 2 * 152
    assert counts["convert"] == counts["add"] == counts["sample"] == reads * 2 * 168
    assert counts["load"] == 3 * 2 * 100 * 2
    assert counts["store"] == 3 * 2 * 40 * 2 * 4
    assert counts["mac"] == 3 * 2 * 100 * 40


@pytest.mark.parametrize(("coding", "slices"), [("bit_serial", 8), ("pulse_width", 1), ("multi_bit", 4)])
def test_reads_follow_the_input_coding(coding: str, slices: int):
    digits = {"slice_bits": 2} if coding == "multi_bit" else {}
    chip = HYFLEX.replace({"units.analog.input": {"coding": coding, **digits}})
    unit = chip.units["analog"]
    one = Operation(layer="w", kind="static_matmul", m=5, k=64, n=1)
    assert on_crossbar(unit, one, place_layer(unit, "w", 64, 1)).counts["read"] == 5 * slices


def test_differential_pairs_are_converted_once_or_twice():
    for subtract, conversions in (("analog", 7), ("digital", 14)):
        changes = {"weights": "differential", "bits": 8, "scale": "column", "flip": False, "subtract": subtract}
        chip = build_chip(SLC.model_dump() | {"name": "pairs"}).replace({"units.analog.encoding": changes})
        unit = chip.units["analog"]
        layer = place_layer(unit, "w", 64, 1)
        assert layer.regions[0].cell_columns == 14  # seven bits, two cells each
        one = Operation(layer="w", kind="static_matmul", m=1, k=64, n=1)
        assert on_crossbar(unit, one, layer).counts["convert"] == conversions * 8


# conservation

MODELS = {
    "bert-base": lambda: [bert_base()],
    "bert-large": lambda: [bert_large()],
    "gpt2": lambda: [gpt2(64), gpt2(64, 32)],
    "llama-3.2-1b": lambda: [llama_1b(64), llama_1b(64, 32, batch=2)],
    "vit-base": lambda: [vit_base()],
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("chip", chip_names())
def test_parts_sum_to_totals(chip: str, model: str):
    for workload in MODELS[model]():
        report = estimate(workload, load_chip(chip))
        for view in VIEWS:
            rows = report.by(view)
            assert math.fsum(row["energy"] for row in rows) == pytest.approx(report.energy, rel=1e-9, abs=0)
            column, total = ("area", report.area) if view == "component" else ("latency", report.latency)
            assert math.fsum(row[column] for row in rows) == pytest.approx(total, rel=1e-9, abs=0)
            assert all(value >= 0 for row in rows for value in row.values() if isinstance(value, float))
        parts = (report.dynamic_energy, report.static_energy, report.link_energy)
        assert math.fsum(parts) == pytest.approx(report.energy, rel=1e-12)
        assert report.latency > 0
        assert 0 < report.interval <= report.latency * (1 + 1e-9)


@pytest.mark.parametrize("chip", [name for name in chip_names() if name != "ideal"])
def test_every_component_is_plausible(chip: str):
    """Energy per multiply-add between a tenth of a femtojoule and a nanojoule, and no area beyond a wafer's reticle."""
    workload, described = bert_large(), load_chip(chip)
    report = estimate(workload, described)
    assert 1e-16 < report.energy / workload.macs() < 1e-9
    for row in report.by("component"):
        assert 0 <= row["energy"] <= 1e-9 * workload.macs(), row
        assert row["area"] / report.placement.chips < 2000e-6, row  # m2 of one component on one chip
    assert report.power / report.placement.chips < 2000


# anchors


def test_hyflexpim_energy_per_multiply_add():
    """Table 2 at 100 ns: 181.8 pJ an SLC read, 281.8 pJ an MLC one; 1.420 and 1.101 pJ per INT8 multiply-add."""
    work = product(1, 64 * 16, 128 * 16)
    assert estimate(work, SLC).energy / work.macs() == pytest.approx(1.420e-12, rel=5e-4)
    assert estimate(work, MLC).energy / work.macs() == pytest.approx(1.101e-12, rel=5e-4)


def test_hyflexpim_module_power_is_table_2():
    work = product(1000, 64, 128 // 8 * 512)  # the 512 arrays of one module
    report = estimate(work, SLC.replace({"units.analog.count": {"array": 512, "module": 1, "pu": 1}}))
    assert share(report, "analog") / report.interval == pytest.approx(930.69e-3, rel=1e-4)
    rows = {row["component"].removeprefix("analog."): row for row in report.by("component")}
    printed = {"rram": 60.78, "input_register": 0.13, "output_register": 0.53, "row_driver": 297.71, "adc": 512.0}
    for name, milliwatts in (printed | {"shift_add": 59.54}).items():
        assert rows[name]["energy"] / report.interval == pytest.approx(milliwatts * 1e-3, rel=1e-4)


def test_hyflexpim_digital_module_power_is_table_2():
    scores = Operation(layer="0.a", kind="dynamic_matmul", m=512, k=64, n=512, groups=16)
    sfu = Operation(layer="0.s", kind="softmax", elements=10**6)
    chip = HYFLEX.replace({"units.analog.count.pu": 1, "units.digital.count": {"array": 256, "module": 1, "pu": 1}})
    report = estimate(Workload(model="a", operations=[scores, sfu]), chip)
    time = scores.macs / (819.2 * 1e9)
    assert share(report, "digital") / time == pytest.approx((6532.05 - 138.89) * 1e-3, rel=1e-4)
    assert share(report, "sfu") / (10**6 / 256e9) == pytest.approx(138.89e-3, rel=1e-4)


@pytest.mark.parametrize(("tokens", "all_slc", "hybrid"), [(128, 102.4, 53.8), (1024, 819.2, 430.0)])
def test_hyflexpim_interval_of_a_bert_large_layer(tokens: int, all_slc: float, hybrid: float):
    """Derivation beside the paper: linear time plus attention at 819 INT8 products a cycle and module."""
    attention = 2 * tokens**2 * 1024 / (8 * 819.2e9) * 1e6
    for chip, linear, off in ((SLC, all_slc, 0.001), (HYFLEX, hybrid, 0.012)):  # array rounding costs 1 % at 5 % SLC
        report = estimate(bert_large(tokens), chip)
        special = tokens * (16 * tokens + 4096 + 4 * 1024) / (8 * 256e9) * 1e6
        assert report.interval * 1e6 == pytest.approx(linear + attention + special, rel=off)


@pytest.mark.parametrize(("reading", "rate"), [("published", 273.07), ("row_parallel", 819.2), ("magic", 361.1)])
def test_readings_of_the_digital_arithmetic(reading: str, rate: float):
    chip = HYFLEX.replace({"units.digital.reading": reading})
    assert chip.units["digital"].operations_per_cycle == pytest.approx(rate, rel=1e-3)


def test_isaac_chip_power_and_area():
    """Table II: 65.8 W and 85.4 mm2 a chip, every array read every 100 ns."""
    chip = load_chip("isaac")
    tiles = product(1, 128, 16 * 12 * 8 * 168)  # 128 x 16 16-bit weights an array
    report = estimate(tiles, chip)
    assert report.placement.utilisation == 1
    assert report.power == pytest.approx(65.8, rel=0.02)
    assert report.area == pytest.approx(85.4e-6, rel=0.02)


def test_neurram_chip():
    """6.44 TOPS/W and 0.264 TOPS at 8-bit inputs and 10-bit outputs, all 48 cores."""
    cores = [Operation(layer=f"{core}.w", kind="static_matmul", m=100, k=256, n=128) for core in range(48)]
    work = Workload(model="48 cores", operations=cores)
    report = estimate(work, load_chip("rram-neurram"))
    assert report.placement.utilisation == 1
    assert 2 * work.macs() / report.energy == pytest.approx(6.44e12, rel=0.02)
    assert 2 * work.macs() / report.interval == pytest.approx(0.264e12, rel=0.001)


def test_asadi_power_and_area():
    """Table I: an analog module 17.36 mW (sum of its parts), a digital one 3708 mW and 1.927 mm2, 12 x (24 + 12)."""
    chip = load_chip("asadi")
    full = estimate(product(1, 64, 64 // 16 * 96 * 24 * 12), chip)
    assert share(full, "analog") / full.interval == pytest.approx(12 * 24 * 17.36e-3, rel=0.01)
    area = {row["component"]: row["area"] for row in full.by("component")}
    digital = sum(value for name, value in area.items() if name.startswith("digital"))
    assert digital == pytest.approx(144 * 1.927e-6, rel=0.001)


@pytest.mark.parametrize(("chip", "microseconds", "millijoules"), [("gpu-a100", 148, 59), ("gpu-h100", 90, 63)])
def test_ideal_roofline_of_bert_large(chip: str, microseconds: float, millijoules: float):
    """302 MB of INT8 weights over the bandwidth at full power; activations come on top of that here."""
    ideal = load_chip(chip).replace({"units.gpu.compute_utilisation": 1.0, "units.gpu.memory_utilisation": 1.0})
    report = estimate(bert_large(128), ideal)
    per_token = 3 * 2048 + 2048 + 2 * 5120 + 4 * 1024  # in and out of q, k, v, o, up, down; queries to contexts
    traffic = 1 + 24 * 128 * per_token / (24 * 12 * 1024**2)
    assert report.latency * 1e6 == pytest.approx(microseconds * traffic, rel=0.01)
    assert report.energy * 1e3 == pytest.approx(millijoules * traffic, rel=0.01)


def test_ideal_roofline_of_llama_decode():
    """2.47 GB of half-precision weights a token: 825 tokens a second on an A100."""
    changes = {"compute_utilisation": 1.0, "memory_utilisation": 1.0, "bits": 16, "peak": 312e12}
    chip = load_chip("gpu-a100").replace({f"units.gpu.{name}": value for name, value in changes.items()})
    rows = {row["phase"]: row for row in estimate(llama_1b(1, 100), chip).by("phase")}
    assert 100 / rows["decode"]["latency"] == pytest.approx(825, rel=0.02)


# laws


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 300), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_energy_is_proportional_to_inputs(m: int, k: int, n: int, times: int):
    once, more = estimate(product(m, k, n), HYFLEX), estimate(product(m * times, k, n), HYFLEX)
    assert more.energy == pytest.approx(once.energy * times)


def test_latency_and_interval_are_different_numbers():
    report = estimate(bert_large(), SLC)
    assert report.latency > 20 * report.interval  # 24 layers in a pipeline
    assert report.throughput == 1 / report.interval
    assert report.tokens_per_second == pytest.approx(128 / report.interval)


def test_decode_latency_is_the_chain_of_products():
    """q, k and v side by side, then o, up, down: four reads of 800 ns a layer and token."""
    report = estimate(transformer(1, 64, 64, 1, 1, new_tokens=10), SLC)
    rows = {row["operation"]: row for row in report.by("operation")}
    assert rows["static_matmul"]["latency"] == pytest.approx(4 * 800e-9 * (1 + 10))
    assert report.token_latency == pytest.approx(rows["static_matmul"]["latency"] / 11, rel=0.05)
    assert estimate(bert_base(), SLC).token_latency is None


def test_decoding_in_two_parts_costs_the_same():
    """A trace cuts decoding in two, so that the mean context is exact."""
    whole = transformer(2, 64, 64, 1, 8, new_tokens=10)
    parts: list[Operation] = []
    for phase, repeats in (("prefill", (1,)), ("decode", (7, 3))):
        chosen = [one for one in whole.operations if one.phase == phase]
        parts += [one.model_copy(update={"repeat": repeat}) for repeat in repeats for one in chosen]
    cut = whole.model_copy(update={"operations": parts})
    for chip in (SLC, load_chip("isaac"), load_chip("gpu-h100")):
        one, two = estimate(whole, chip), estimate(cut, chip)
        assert two.energy == pytest.approx(one.energy)
        assert two.latency == pytest.approx(one.latency)
        assert two.interval == pytest.approx(one.interval)


def test_a_layer_used_twice_takes_twice_as_long():
    once = product(100, 64, 16)
    twice = Workload(model="shared", operations=once.operations * 2)
    first, second = estimate(once, SLC), estimate(twice, SLC.replace({"units.analog.schedule.copies": "one"}))
    assert second.placement.blocks[0].arrays == first.placement.blocks[0].arrays
    one = estimate(once, SLC.replace({"units.analog.schedule.copies": "one"}))
    assert second.interval == pytest.approx(2 * one.interval)
    assert second.energy == pytest.approx(2 * first.energy)


def test_long_attention_is_tiled():
    """8192 tokens: 16 heads of 64 MiB of scores in the 256 MiB of a unit."""
    said = estimate(bert_large(8192), HYFLEX).assumptions
    assert any("computed in 4 tiles" in line for line in said)
    assert not any("tiles" in line for line in estimate(bert_large(2048), HYFLEX).assumptions)


def test_a_batch_shares_the_weights_of_a_gpu():
    one, eight = (estimate(llama_1b(1, 50, batch=batch), load_chip("gpu-h100")) for batch in (1, 8))
    assert eight.energy / 8 < 0.2 * one.energy
    assert eight.throughput > 5 * one.throughput
    assert eight.tokens_per_second == pytest.approx(50 * eight.throughput)


def test_modes_by_rank_change_the_counts():
    unit = HYFLEX.units["analog"]
    one = Operation(layer="left", kind="static_matmul", m=3, k=512, n=1024, modes_by="row")
    counts = on_crossbar(unit, one, place_layer(unit, "left", 512, 1024, modes_by="row")).counts
    assert counts["drive"] == 3 * 8 * (26 * 64 + 486 * 32)
    assert counts["convert_slc"] == 3 * 8 * 1024 * 8 * 1
    assert counts["convert_mlc"] == 3 * 8 * 1024 * 4 * 8


def test_leakage_is_paid_over_the_interval():
    report = estimate(product(100, 128, 64), load_chip("isaac"))
    assert report.static_energy == pytest.approx(10.4 * report.interval)


def test_twice_the_units_are_twice_as_fast():
    units = ("analog", "digital", "sfu")
    one, two = (SLC.replace({f"units.{unit}.count.pu": pus for unit in units}) for pus in (12, 24))
    assert estimate(bert_base(1024), one).interval == pytest.approx(2 * estimate(bert_base(1024), two).interval)


def test_units_that_share_one_copy_exchange_partial_sums():
    """A Llama-3.2-1B layer in SLC spans 5 units: 4 times 2048 sums of 4 bytes a token over 128 GB/s."""
    work = transformer(16, 2048, 8192, 32, 100, kv_heads=8, gated=True)
    free, bound = (estimate(work, SLC.replace({"links": links})) for links in ({}, {"bus": {"bandwidth": 128e9}}))
    (block,) = bound.placement.blocks
    assert bound.placement.levels(block) == 5
    held_up = 100 * 4 * 2048 * 4 / 128e9
    on_the_bus = 16 / 4 * held_up  # four chips with a bus each: it is what limits the stream
    assert bound.interval == pytest.approx(max(free.interval + held_up / block.copies, on_the_bus))
    assert bound.latency - free.latency == pytest.approx(16 * held_up)
    assert any("no link 'pu'" in line for line in free.assumptions)


def test_what_has_no_unit_is_said():
    report = estimate(gpt2(8), HYFLEX)
    assert any("embedding stays digital, not costed: 1 operations" in line for line in report.assumptions)
    only = HYFLEX.replace({"policy": {"static_matmul": "analog"}})
    said = "\n".join(estimate(bert_base(), only).assumptions)
    for kind in ("dynamic_matmul", "softmax", "activation", "norm", "elementwise"):
        assert f"{kind} stays digital, not costed" in said


def test_a_description_without_prices_says_so():
    report = estimate(bert_base(), load_chip("ideal"))
    assert (report.energy, report.area, report.placement.chips) == (0, 0, 1)
    assert any("has no prices" in line for line in report.assumptions)
    assert not any("has no prices" in line for line in estimate(bert_base(), load_chip("gpu-h100")).assumptions)


def test_scaling_is_declared():
    report = estimate(product(1, 64, 64), load_chip("hyflexpim-corrected"))
    assert any("analog.adc: scaled from 32 to 65 nm" in line and "x 2.326" in line for line in report.assumptions)


def test_llama_70b_on_many_chips():
    report = estimate(llama_70b(128, 16), HYFLEX)
    assert report.placement.chips > 100
    placed = report.to_dict()["placement"]
    assert len(placed["segments"]) + placed["segments_left_out"] == len(layout(report.placement))
    assert len(placed["segments"]) <= 4000
    assert any("chips in a row" in line for line in report.assumptions)


# the report


def test_json_and_comparison():
    report, gpu = estimate(bert_base(), HYFLEX), estimate(bert_base(), load_chip("gpu-h100"))
    data = json.loads(report.to_json())
    assert data["totals"]["energy"] == report.energy
    rows = {row["quantity"]: row for row in report.compare(gpu)}
    assert rows["energy"]["advantage"] == pytest.approx(gpu.energy / report.energy)
    assert rows["throughput"]["advantage"] == pytest.approx(report.throughput / gpu.throughput)
    with pytest.raises(DataError, match=r"by\('colour'\) is not a view.*component, layer, phase, operation"):
        report.by("colour")


def test_layers_have_their_own_names():
    rows = {row["layer"] for row in estimate(bert_base(), HYFLEX).by("layer")}
    assert {"model.layers.0.attention.q", "model.layers.11.mlp.down"} <= rows


# bad descriptions


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "units.analog.components.rram.energy",
            {"reed": 1e-12},
            r"'reed' is not an action of this unit; choose from read",
        ),
        ("units.analog.components.rram.per", "colum", r"rram.per = 'colum' is not a level .*array, module, pu, row"),
        ("units.digital.components.rram.energy", {"read": 1.0}, r"'read' is not an action .*cycle, mac, write"),
        ("units.analog.components.rram.area", -1.0, r"rram.area = -1.0 is not allowed"),
        ("units.digital.count", {"array": 4}, r"count needs a level 'module'"),
    ],
)
def test_bad_prices_are_one_clear_error(path: str, value: object, message: str):
    with pytest.raises(ChipError, match=message):
        HYFLEX.replace({path: value})
