"""Cost of chips read by ACAMs: counts by hand, by trace, and the published core."""

import math

import pytest
from transformers import BertConfig

import cimphony as cim
from cimphony.chip import AcamUnit, CrossbarUnit, load_chip
from cimphony.cost.acam import on_acam
from cimphony.cost.crossbar import on_crossbar, pass_time
from cimphony.errors import CapacityError
from cimphony.mapping import place, place_layer
from cimphony.papers.transformers import BERT_BASE, LLAMA_1B, LLAMA_3B, prefill
from cimphony.workload import Operation, Workload

CHIP = load_chip("nl-dpe")
DIGITAL = CHIP.replace({"units.analog.adc.partial_sums": "digital"})
CORE = ("crossbars", "dac", "acam", "input_buffer", "output_buffer", "gray_decode")


def analog(chip: cim.Chip = CHIP) -> CrossbarUnit:
    unit = chip.units["analog"]
    assert isinstance(unit, CrossbarUnit)
    return unit


def functions(**changes: object) -> AcamUnit:
    unit = CHIP.units["functions"]
    assert isinstance(unit, AcamUnit)
    return unit.model_copy(update=changes)


def component(report: cim.CostReport, name: str, column: str = "energy") -> float:
    return sum(row[column] for row in report.by("component") if row["component"] == name)


@pytest.mark.parametrize(("chip", "blocks"), [(CHIP, 1), (DIGITAL, 2)])
def test_a_product_by_hand(chip: cim.Chip, blocks: int) -> None:
    unit, one = analog(chip), Operation(layer="w", kind="static_matmul", m=3, k=300, n=260, repeat=2)
    layer = place_layer(unit, "w", 300, 260)
    assert layer.arrays == 4  # 300 rows in two blocks of 256, 260 outputs in two of 256
    job = on_crossbar(unit, one, layer)
    vectors = 3 * 2
    assert job.counts["read"] == vectors * 8 * 4
    assert job.counts["drive"] == vectors * 8 * 300 * 2
    assert job.counts["convert"] == vectors * 260 * blocks  # once for all eight slices of an input
    assert job.counts["add"] == vectors * 260 * (blocks - 1)
    assert job.counts["load"] == vectors * 300 * 2
    assert job.counts["store"] == vectors * 260 * blocks
    assert job.seconds == pytest.approx(vectors * 10e-9)  # eight cycles, then two for the ACAM


@pytest.mark.parametrize(("packing", "passes"), [("full", math.ceil(2 * 5 * 64 * 7 / 256)), ("vector", 2 * 5 * 7)])
def test_products_of_activations_by_hand(packing: str, passes: int) -> None:
    one = Operation(layer="a", kind="dynamic_matmul", function="query_key", m=5, k=64, n=7, groups=2)
    job = on_acam(functions(packing=packing, bandwidth=None), analog(), one)
    logs, products = 2 * (5 * 64 + 64 * 7), 2 * 5 * 64 * 7
    assert job.counts["convert"] == logs + products
    assert job.counts["read"] == 8 * (math.ceil(logs / 256) + passes)
    assert job.counts["drive"] == 8 * (logs + products)
    assert job.counts["load"] == logs + 3 * products
    assert job.counts["store"] == logs + 2 * 5 * 7
    assert job.counts["sum"] == products + 2 * 5 * 7 * 63  # of two logs, and over the inner size
    assert job.counts["sign"] == products
    assert job.seconds == pytest.approx((math.ceil(logs / 256) + passes) * 10e-9)
    waiting = on_acam(functions(packing=packing), analog(), one)
    assert waiting.seconds == pytest.approx((2 * logs + 3 * products + 2 * 5 * 7) / 4e9)  # bytes, at 4 a ns


def test_a_step_of_decoding_takes_logs_of_new_tokens_only() -> None:
    shape = {"layer": "a", "kind": "dynamic_matmul", "phase": "decode", "m": 1, "groups": 4, "repeat": 9}
    scores = Operation(**shape, function="query_key", k=64, n=500)
    values = Operation(**shape, function="attention_value", k=500, n=64)
    for one, logs in ((scores, 64 + 64), (values, 500 + 64)):
        assert on_acam(functions(), analog(), one).counts["convert"] == 9 * 4 * (logs + 500 * 64)


def test_softmax_and_activation_by_hand() -> None:
    softmax = on_acam(functions(), analog(), Operation(layer="a", kind="softmax", elements=700), row=7).counts
    assert softmax["convert"] == 2 * 700 + 100
    assert softmax["sum"] == 700 - 100 + 700 + 700 - 100 + 700
    activation = on_acam(functions(), analog(), Operation(layer="a", kind="activation", elements=700)).counts
    assert (activation["convert"], activation["read"], activation.get("sum", 0)) == (700, 8 * 3, 0)


def test_an_activation_after_a_product_costs_nothing_where_columns_see_whole_sums() -> None:
    def report(chip: cim.Chip, rows: int, elements: int) -> cim.CostReport:
        product = Operation(layer="0.w", kind="static_matmul", m=4, k=rows, n=100)
        gelu = Operation(layer="0.act", kind="activation", function="gelu", elements=elements)
        return cim.estimate(Workload(model="two", operations=[product, gelu]), chip)

    def functions_energy(chip: cim.Chip, rows: int, elements: int) -> float:
        rows_by = {row["operation"]: row["energy"] for row in report(chip, rows, elements).by("operation")}
        return rows_by.get("activation", 0.0)

    assert functions_energy(CHIP, 1000, 400) == functions_energy(DIGITAL, 200, 400) == 0
    assert functions_energy(DIGITAL, 1000, 400) > 0  # codes of blocks are added digitally: a second pass
    assert functions_energy(CHIP, 1000, 399) > 0  # not what the product gives
    assert "1 activations are what a product's ACAMs convert to" in " ".join(report(CHIP, 9, 400).assumptions)


def test_a_traced_model_costs_what_the_formulas_say() -> None:
    config = BertConfig(hidden_size=128, num_hidden_layers=3, num_attention_heads=2, intermediate_size=512)
    config.vocab_size, tokens = 300, 40
    work = cim.trace(config, prompt=tokens)
    layers = sum(one.m * one.n * one.groups for one in work.select("static_matmul"))
    heads, size = 3 * 2, 64
    products = heads * 2 * tokens * tokens * size
    logs = heads * (2 * tokens * size + tokens * tokens + tokens * size)  # q and k; scores and v
    exps = heads * (2 * tokens * tokens + tokens)
    others = sum(one.elements for one in work.select("activation")) - 3 * tokens * 512  # GELU is fused
    report = cim.estimate(work, CHIP)
    each = 132 * 1.287878787878788e-15
    converted = layers + products + logs + exps + others
    assert component(report, "analog.acam") == pytest.approx(converted * each, rel=1e-12)


def test_a_pass_of_a_core_is_75_pj_and_10_ns() -> None:
    one = Operation(layer="0.w", kind="static_matmul", m=1, k=256, n=256)
    report = cim.estimate(Workload(model="pass", operations=[one]), CHIP)
    energy = sum(component(report, f"analog.{name}") for name in CORE)
    assert energy == pytest.approx(8 * 3.89e-12 + 43.9e-12, rel=1e-3)
    assert pass_time(analog()) == pytest.approx(10e-9)


def test_more_bits_and_binary_codes_search_more_cells() -> None:
    work = prefill(BERT_BASE, 8)
    base = component(cim.estimate(work, CHIP), "analog.acam")
    for field, value, cells in (("bits", 9, 260), ("code", "binary", 262), ("spare_rows", 2, 148), ("rows", 66, 66)):
        changed = cim.estimate(work, CHIP.replace({f"units.analog.adc.{field}": value}))
        assert component(changed, "analog.acam") == pytest.approx(base * cells / 132)
        area = component(changed, "analog.acam", "area")
        assert area == pytest.approx(256 * 6144 * cells * 1.226059e-12)


def test_an_array_is_left_for_the_identity() -> None:
    """Llama-3.2-3B fills seven chips to the last cell: products of activations need an eighth."""
    for shape, chips in ((LLAMA_1B, 3), (LLAMA_3B, 8)):
        assert place(prefill(shape, 8), CHIP).chips == chips
    assert place(prefill(LLAMA_3B, 8), CHIP.replace({"policy": {"static_matmul": "analog"}})).chips == 8
    with pytest.raises(CapacityError, match="chips=8"):
        place(prefill(LLAMA_3B, 8), CHIP, 7)
    copied = place(prefill(BERT_BASE, 8), CHIP.replace({"units.analog.schedule.copies": "ideal"}))
    assert copied.arrays <= 6144 - 1 + 1e-6


def test_arrays_of_their_own_leave_the_stored_weights_alone() -> None:
    units = CHIP.model_dump()["units"]
    own = CHIP.replace(
        {
            "units.identity": units["analog"] | {"count": {"array": 1, "tile": 16}},
            "units.functions.arrays": "identity",
        }
    )
    work = prefill(BERT_BASE, 16)
    shared, apart = cim.estimate(work, CHIP), cim.estimate(work, own)
    assert apart.area > shared.area
    assert apart.interval > 100 * shared.interval  # 16 arrays instead of 4848
    assert apart.dynamic_energy == pytest.approx(shared.dynamic_energy, rel=1e-9)
