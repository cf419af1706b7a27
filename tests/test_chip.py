"""Chips: presets load, changes are new chips, every bad field is one clear sentence."""

import json
from pathlib import Path

import pytest

from cimphony import Chip, ChipError, chip_names, load_chip


@pytest.mark.parametrize("name", ["ideal", "hyflexpim", "isaac", "pcm-256", "rram-neurram", "gpu-h100", "gpu-a100"])
def test_presets_are_there_and_name_their_source(name: str) -> None:
    chip = load_chip(name)
    assert chip.name == name
    assert chip.source
    assert name in chip_names()


def test_replace_makes_a_new_chip() -> None:
    chip = load_chip("hyflexpim")
    other = chip.replace({"units.analog.adc.bits": 8, "units.analog.adc.range": "full_scale"})
    assert other.units["analog"].adc.bits == {"slc": 8, "mlc": 8}
    assert chip.units["analog"].adc.bits == {"slc": 6, "mlc": 7}
    assert chip == load_chip("hyflexpim")


def test_base_and_overrides(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("base: hyflexpim\nname: mine\nunits: {analog: {rows: 128}}\n")
    (tmp_path / "again.yaml").write_text("base: mine.yaml\nname: again\nunits: {analog: {adc: {bits: 8}}}\n")
    chip = load_chip(tmp_path / "again.yaml")
    assert (chip.name, chip.units["analog"].rows, chip.units["analog"].columns) == ("again", 128, 128)
    assert chip.units["analog"].adc.bits["mlc"] == 8


def test_another_kind_of_part_replaces(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("base: pcm-256\nname: mine\nunits: {analog: {cell: {device: {mlc: {kind: ideal}}}}}\n")
    assert load_chip(path).units["analog"].cell.device["mlc"].kind == "ideal"


BAD = [
    ({"units.analog.adc.bits": 0}, r"units\.analog\.adc\.bits\.slc = 0 .* greater than or equal to 1"),
    ({"units.analog.adc.bits": 99}, "less than or equal to 16"),
    ({"units.analog.adc.bist": 7}, "did you mean 'bits'"),
    ({"units.analg.rows": 7}, "units has no 'analg'"),
    ({"units.analog.rows.x": 7}, "is a plain value"),
    ({"units.analog.cell.device": {"kind": "pcmm"}}, "'pcmm' is unknown; choose one of 'ideal'"),
    ({"units.analog.cell.device": {"kind": "gaussian", "multiplicative": -0.1}}, "greater than or equal to 0"),
    ({"units.analog.cell.device": {"kind": "gaussian", "multiplicative": float("nan")}}, "finite number"),
    ({"units.analog.cycle": 0}, "greater than 0"),
    ({"units.analog.cell": {"bits": {"slc": 1, "mlc": 2}, "device": {"kind": "ideal"}}}, "slc_rate is needed"),
    ({"units.analog.cell.bits": 8, "units.analog.cell.slc_rate": None}, "must be below encoding.bits = 8"),
    (
        {"units.analog.encoding": {"weights": "differential", "flip": True}},
        "flip = true needs weights: twos_complement or",
    ),
    ({"units.analog.input.slice_bits": 2}, "slice_bits = 2 needs coding: multi_bit, not bit_serial; or slice_bits: 1"),
    ({"units.analog.adc.quantile": 0.9}, "quantile = 0.9 needs range: calibrated, not level"),
    ({"units.analog.encoding.bits": None}, "fidelity exact reads integers"),
    ({"policy.static_matmul": "nowhere"}, "'nowhere' is not one of the units"),
    ({"policy.softmax": "analog"}, "a crossbar unit cannot run softmax"),
    ({"node": -65e-9}, "node = -6.5e-08 is not allowed"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_a_bad_field_is_one_clear_sentence(changes: dict, message: str) -> None:
    with pytest.raises(ChipError, match=message) as caught:
        load_chip("hyflexpim").replace(changes)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "a chip file is a mapping of fields, not list"),
        ("name: [", "is not valid YAML"),
        ("", "not NoneType"),
        ("name: x\nunits: {}\nnode: 1e-9\n", "units"),
        ("name: x\nnode: 1.0e-9\n", "units is missing"),
        ("base: nowhere\nname: x\n", "neither a preset nor a file"),
        ("base: self.yaml\nname: x\n", "leads back to itself"),
        ("base: hyflexpim\nname: x\nname: y\n", "'name' is given twice in line 3"),
        ("base: hyflexpim\n\tname: x\n", "in line 2"),
        ("base: hyflexpim\nnode: 22\n", "22 m is no technology node: 22 nm is 22.0e-9"),
        ("base: hyflexpim\nunits: {crossbar: {rows: 1}}\n", "choose one of crossbar, .* correct the name 'crossbar'"),
        ("base: hyflexpim\npolicy: {norms: sfu}\n", "policy.norms = 'norms' is not allowed"),
        (
            "base: hyflexpim\nunits: {analog: {rows: yes}}\n",
            "analog: rows: yes, no, on, off, true and false are no numbers",
        ),
        ("base: hyflexpim\nunits: {analog: {count: {array: on}}}\n", "analog: count: yes, no"),
        (
            "base: pcm-256\nunits: {analog: {cell: {device: {read: 2}}}}\n",
            r"device: read stands beside mlc; .*mlc: {read",
        ),
        (
            "name: x\nnode: 1.0e-9\nunits: [{analog: {rows: 64, columns: 64, cell: {}}}]\n",
            r"units = \[{.{,60} is not allowed",
        ),
        ("node: 1.0e-9\n", "the chip: name is missing"),
        ("base: isaac\nlinks: {chips: {bandwidth: 1.0e+9}}\n", "links.chips = 'chips' is not .* 'bus', 'pu' or 'chip'"),
        ("!!python/object/apply:os.system ['true']", "is not valid YAML"),
    ],
)
def test_a_bad_file_is_one_clear_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "self.yaml"
    path.write_text(text)
    with pytest.raises(ChipError, match=message):
        load_chip(path)


def test_a_file_without_a_name_is_called_like_itself(tmp_path: Path) -> None:
    path = tmp_path / "tall.yaml"
    path.write_text("base: hyflexpim\nunits: {analog: {rows: 128}}\n")
    assert load_chip(path).name == "tall"


def test_unknown_chip_lists_the_presets() -> None:
    with pytest.raises(ChipError, match=r"'hyflexpin' is neither a preset nor a file; did you mean 'hyflexpim'"):
        load_chip("hyflexpin")


def test_schema_describes_every_field_with_its_unit() -> None:
    schema = Chip.model_json_schema()
    json.dumps(schema)
    assert "[m]" in schema["properties"]["node"]["description"]
    assert {"CrossbarUnit", "PcmDevice", "Adc"} <= set(schema["$defs"])


def test_measured_levels_from_a_csv_file(tmp_path: Path) -> None:
    """Of the file's own folder, also where it is the base of a file elsewhere; the chip holds the numbers."""
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "cells.csv").write_text(
        "\ufefftarget, mean, sd\n# wafer 7\n0, 0.1e-6, 0.2e-6\n2e-5,2e-5,1e-6\n"
    )
    mine = "base: hyflexpim\nunits: {analog: {cell: {device: {kind: measured, levels: cells.csv}}}}\n"
    (tmp_path / "lab" / "mine.yaml").write_text(mine)
    (tmp_path / "lab" / "wide.yaml").write_text("base: mine.yaml\nunits: {analog: {rows: 128}}\n")
    (tmp_path / "outer.yaml").write_text("base: lab/wide.yaml\n")
    device = load_chip(tmp_path / "outer.yaml").units["analog"].cell.device["mlc"]
    assert [level.sd for level in device.levels] == [0.2e-6, 1e-6]
    assert device == load_chip(tmp_path / "lab" / "mine.yaml").units["analog"].cell.device["slc"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (None, r"levels: .*cells.csv: No such file.*give a CSV file with the columns target, mean, sd"),
        ("target,mean,sd\n0,0,0\n25,25,1\n", "25 S is no conductance of a cell: 25 uS is 25.0e-6"),
        ("target,mean,sd\n1e-6,0,0\n1e-6,1e-6,0\n", "levels must rise by target, not 1e-06, 1e-06 S"),
        ("target;mean;sd\n0;0;0\n", "levels.0.target is missing"),
        ("target,mean,sd\n0,0,0\n1e-6,x,0\n", "levels.1.mean = 'x' is not allowed"),
    ],
)
def test_tables_that_do_not_fit(table: str | None, message: str, tmp_path: Path) -> None:
    if table is not None:
        (tmp_path / "cells.csv").write_text(table)
    mine = "base: hyflexpim\nunits: {analog: {cell: {device: {kind: measured, levels: cells.csv}}}}\n"
    (tmp_path / "mine.yaml").write_text(mine)
    with pytest.raises(ChipError, match=message):
        load_chip(tmp_path / "mine.yaml")
