"""QuadINR's claims; those about size need yosys and are not measured without it."""

import shutil

import pytest
import torch

from cimphony.papers import paper_names, quad_inr, reproduce


def test_claims_without_yosys(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "quad-inr" in paper_names()
    monkeypatch.setattr(shutil, "which", lambda _: None)
    quad_inr.count.cache_clear()
    record = reproduce("quad-inr")
    verdicts = {row["id"]: row["verdict"] for row in record.results["claims"]}
    assert verdicts["harmonic-1"] == verdicts["spectrum"] == "reproduced"
    assert verdicts["harmonic-3"] == "not reproduced"  # the printed number is the second harmonic's
    assert verdicts["resources-logic"] == verdicts["area"] == "not derivable"
    notes = {row["id"]: row["note"] for row in record.results["claims"]}
    assert notes["resources-logic"].startswith("every multiplier in logic; yosys is not installed")
    titles = [one["title"] for one in record.results["figures"]]
    assert titles[:2] == ["The activation", "Tangent kernel"]


def test_fitted_pictures_stand_beside_the_original() -> None:
    pytest.importorskip("skimage")
    (drawn,) = quad_inr.fitted(size=12, steps=20)
    names = [one["name"] for one in drawn["pictures"]]
    assert names[0] == "original"
    assert [name.split(",")[0] for name in names[1:]] == list(quad_inr.RATES)
    truth, *ours = (torch.tensor(one["rows"]) for one in drawn["pictures"])
    for name, picture in zip(names[1:], ours, strict=True):
        measured = quad_inr.quad_inr.psnr(picture / 255, truth / 255)
        assert measured == pytest.approx(float(name.split(", ")[1].removesuffix(" dB")), abs=0.1)  # 8 bits of grey


def test_a_reduction_is_one_minus_a_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"quad": 10, "taylor": 50, "cordic": 40, "sinc": 20}
    monkeypatch.setattr(quad_inr, "count", lambda name, target, cell: counts[name])
    assert quad_inr.reduction("cmos", "transistors") == pytest.approx(80)
    assert quad_inr.reduction("cmos", "transistors", ("cordic",)) == pytest.approx(75)
    assert quad_inr.latency_reduction() == pytest.approx(100 * (1 - 4 / 29))
