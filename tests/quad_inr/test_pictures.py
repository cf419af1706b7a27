"""Pictures by name and by path."""

from pathlib import Path

import numpy as np
import pytest

import cimphony as cim
from cimphony.papers.pictures import load_picture, load_video, patches

pytest.importorskip("skimage", reason="needs scikit-image")


def test_by_name_and_by_path(tmp_path: Path) -> None:
    from PIL import Image

    grey = load_picture("camera", 16)
    assert grey.shape == (16, 16, 1)
    assert 0 <= float(grey.min()) < float(grey.max()) <= 1
    assert load_picture("coffee", colour=True).shape == (400, 600, 3)
    pixels = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    Image.fromarray(pixels).save(tmp_path / "mine.png")
    assert np.array_equal(load_picture(tmp_path / "mine.png", colour=True).numpy() * 255, pixels)
    assert load_picture(tmp_path / "mine.png", 6).shape == (6, 6, 1)


def test_video_and_patches() -> None:
    assert load_video().shape == (24, 25, 14, 1)
    images, labels, test_images, test_labels = patches(("camera", "brick"), 8, 3, seed=0)
    assert images.shape == test_images.shape == (6, 1, 8, 8)
    assert labels.tolist() == test_labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_errors() -> None:
    with pytest.raises(cim.DataError, match="'nowhere' is neither a file nor one of scikit-image's"):
        load_picture("nowhere")
    with pytest.raises(cim.DataError, match=r"size = 9999 is not possible for camera: choose 1 to 512"):
        load_picture("camera", 9999)
