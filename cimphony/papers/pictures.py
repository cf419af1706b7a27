"""Pictures to fit and to classify: scikit-image's own by name, or any file by path. Needs Pillow or scikit-image."""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cimphony.errors import DataError


def _extra(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise DataError(f"pictures need {package}: pip install {package}, or give your own tensors") from None


def load_picture(name: str | Path, size: int | None = None, *, colour: bool = False) -> Tensor:
    """A picture [height, width, channel] with values 0 to 1; grey by default, its middle square where `size` is given.

    Args:
        name: of a picture that comes with scikit-image (camera, astronaut, coffee, ...), or the path of a file.
        size: side of the square it is averaged down to.

    Raises DataError for a picture that is not there, or larger `size` than it has.
    """
    pixels = _pixels(name)
    image = torch.from_numpy(np.array(pixels)).float() / 255
    image = image[..., None] if image.dim() == 2 else image[..., :3]
    if not colour and image.shape[-1] == 3:
        image = (image * torch.tensor([0.299, 0.587, 0.114])).sum(dim=-1, keepdim=True)
    if size is None:
        return image
    side = min(image.shape[:2])
    if not 1 <= size <= side:
        raise DataError(f"size = {size} is not possible for {name}: choose 1 to {side}")
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = image[top : top + side, left : left + side].permute(2, 0, 1)[None]
    return F.interpolate(square, size=(size, size), mode="area")[0].permute(1, 2, 0)


def _pixels(name: str | Path) -> Any:
    if Path(name).is_file():
        return np.array(_extra("PIL.Image", "pillow").open(name).convert("RGB"))
    data = _extra("skimage.data", "scikit-image")
    found = getattr(data, str(name), None) if str(name).isidentifier() else None
    if not callable(found):
        raise DataError(f"picture {str(name)!r} is neither a file nor one of scikit-image's; try camera or astronaut")
    return found()


def load_video(path: str | Path | None = None) -> Tensor:
    """The frames [time, height, width, 1] of an animated file, grey, 0 to 1; scikit-image's small one by default."""
    if path is None:
        path = Path(_extra("skimage", "scikit-image").__file__).parent / "data" / "no_time_for_that_tiny.gif"
    image, frames = _extra("PIL.Image", "pillow"), []
    sequence = _extra("PIL.ImageSequence", "pillow")
    with image.open(path) as file:
        frames = [np.asarray(frame.convert("L")) for frame in sequence.Iterator(file)]
    return torch.from_numpy(np.stack(frames)).float()[..., None] / 255


def patches(names: tuple[str, ...], size: int, per_picture: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A small classification task: which picture does a patch come from? Left halves train, right halves test.

    Returns: training images [n, 1, size, size], their labels [n], test images, their labels.
    """
    generator = torch.Generator().manual_seed(seed)
    parts: list[list[Tensor]] = [[], []]
    for name in names:
        picture = load_picture(name)[..., 0]
        half = picture.shape[1] // 2
        for side, image in enumerate((picture[:, :half], picture[:, half:])):
            rows = torch.randint(0, image.shape[0] - size, (per_picture,), generator=generator)
            columns = torch.randint(0, image.shape[1] - size, (per_picture,), generator=generator)
            cuts = [image[r : r + size, c : c + size] for r, c in zip(rows.tolist(), columns.tolist(), strict=True)]
            parts[side].append(torch.stack(cuts)[:, None])
    labels = torch.arange(len(names)).repeat_interleave(per_picture)
    return torch.cat(parts[0]), labels, torch.cat(parts[1]), labels.clone()
