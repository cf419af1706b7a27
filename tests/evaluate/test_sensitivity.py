"""Sensitivity: noise in one group of layers only, and everywhere but there."""

import pytest
import torch
from torch import nn

import cimphony as cim
from cimphony.errors import DataError
from cimphony.evaluate import sensitivity
from cimphony.report import render_report

CHIP = cim.load_chip("ideal").replace({"units.analog.cell.device": {"kind": "gaussian", "additive": 0.05}})
INPUTS = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    """The second layer multiplies by 100 what the third divides: its own noise is seen, relative noise is alike."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16, bias=False), nn.Linear(16, 16, bias=False), nn.Linear(16, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(16))
        model[1].weight.copy_(torch.eye(16))
        model[2].weight.fill_(1.0)
    return model


def error(model: nn.Module) -> float:
    with torch.no_grad():
        return float((model(INPUTS)[:, 0] - INPUTS.sum(dim=1)).abs().mean())


def study(model: nn.Module, **changes: object) -> cim.Record:
    options = {"seeds": range(4), "higher_is_better": False, "progress": False, **changes}
    return sensitivity(model, error, CHIP, **options)


def test_rows_are_what_each_case_measures() -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    results = study(model).results
    assert results["clean"] == pytest.approx(0, abs=1e-5)
    assert [type(layer) for layer in model] == [nn.Linear] * 3
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    for row in results["rows"]:
        chip = CHIP.replace({"units.analog.cell.device": {"kind": "gaussian", "additive": 0.05}})
        alone = []
        for seed in range(4):  # the same draw of noise as on a chip where only this layer is converted
            other = cim.program_(cim.convert_(network(), chip, include=[row["group"]]), seed=seed)
            alone.append(error(other))
        assert row["only_mean"] == pytest.approx(sum(alone) / 4, rel=1e-4)
        assert row["only_worst"] == pytest.approx(max(alone), rel=1e-4)
    everything = [error(cim.program_(cim.convert_(network(), CHIP), seed=seed)) for seed in range(4)]
    assert results["noisy"]["mean"] == pytest.approx(sum(everything) / 4, rel=1e-4)


def test_ranking_and_groups() -> None:
    """The head has one column of 16 cells, the others 256 cells whose errors the head adds up: it does least harm."""
    rows = study(network()).results["rows"]
    assert [row["harm"] for row in rows] == sorted((row["harm"] for row in rows), reverse=True)
    assert rows[-1]["group"] == "2"
    both = study(network(), groups={"body": ["0", "1"], "head": "2"}).results
    assert [(row["group"], row["weights"]) for row in both["rows"]] == [("body", 512), ("head", 16)]
    body = both["rows"][0]
    head = both["rows"][1]
    assert body["without_mean"] == pytest.approx(head["only_mean"])  # two groups: clean one is noise in the other
    assert body["relief"] == pytest.approx(both["noisy"]["mean"] - body["without_mean"])
    assert both["figures"][0]["series"][0]["x"] == ["body", "head"]


def test_the_report_draws_it() -> None:
    page = render_report([study(network())])
    assert "what noise in one group costs" in page
    assert 'class="plot"' in page


def test_a_run_goes_on_from_its_record(tmp_path) -> None:
    path, calls = tmp_path / "s.json", []

    def counted(model: nn.Module) -> float:
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return error(model)

    options = {"seeds": [0, 1], "higher_is_better": False, "record_path": path, "metric_name": "e", "progress": False}
    with pytest.raises(KeyboardInterrupt):
        sensitivity(network(), counted, CHIP, **options)
    finished = sensitivity(network(), counted, CHIP, **options)
    assert len(calls) == 6 + (1 + 2 * 7 - 5)
    assert finished.results == sensitivity(network(), error, CHIP, **options | {"record_path": None}).results
    with pytest.raises(DataError, match="another run"):
        sensitivity(network(), counted, CHIP, **options | {"age": 5.0})


def test_bad_input() -> None:
    with pytest.raises(DataError, match=r"group 'deep' = 'h\.9' matches none"):
        study(network(), groups={"deep": "h.9"})
    with pytest.raises(DataError, match="needs a chip with a crossbar"):
        sensitivity(network(), error, cim.load_chip("gpu-h100"), seeds=[0])
    with pytest.raises(DataError, match="at least one seed"):
        study(network(), seeds=[])
    with pytest.raises(DataError, match="must be a finite number"):
        sensitivity(network(), lambda _: float("nan"), CHIP, seeds=[0], progress=False)
