"""Pictures to arrays: crop, size, colors. Pillow reads and resizes."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
import io
import os
from pathlib import Path
import sys
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError
import tqdm

from experiments.console.errors import UserError

_CHUNK = 256  # pictures in memory at once


class Recipe(NamedTuple):
    """How a picture becomes an array.

    Attributes:
        size: rows and columns of the result; None keeps the picture's own.
        channels: 1 (luma, ITU-R 601) or 3.
        resize: ``crop``: a square from the center, bicubic; ``squash``: the whole
            picture, bilinear, as torchvision resizes a picture that is not square. Both
            with antialiasing: the filter is as wide as the picture is reduced. Nothing
            is cropped or resized where the size is None or the picture has it.
        crop: side of the square in units of the picture's shorter side.
    """

    size: int | None
    channels: int
    resize: str
    crop: float = 1.0


def from_picture(picture: Image.Image, recipe: Recipe) -> np.ndarray:
    """Applies a recipe.

    Args:
        picture: of any size with 8 bits a channel.
        recipe: size, channels and crop.

    Returns:
        ``[H, W, C]`` uint8.

    Raises:
        ValueError: more than 8 bits a channel.
    """
    if picture.mode[0] in "IF":
        raise ValueError(
            f"channels must have at most 8 bits, got the mode {picture.mode}"
        )
    picture = picture.convert("L" if recipe.channels == 1 else "RGB")
    size = recipe.size
    if size is not None and picture.size != (size, size):
        if recipe.resize == "crop":
            side = round(recipe.crop * min(picture.size))
            x, y = ((length - side) // 2 for length in picture.size)
            # Cut first: resize(box=...) would let its filter reach outside the square.
            square = picture.crop((x, y, x + side, y + side))
            picture = square.resize((size, size), Image.Resampling.BICUBIC)
        else:
            picture = picture.resize((size, size), Image.Resampling.BILINEAR)
    array = np.asarray(picture)
    return array.reshape(*array.shape[:2], recipe.channels)


def from_file(location: str, content: bytes, recipe: Recipe) -> np.ndarray:
    """Reads a picture in any format that Pillow knows, and applies a recipe.

    Args:
        location: the file, for errors.
        content: of the file.
        recipe: size, channels and crop.

    Returns:
        ``[H, W, C]`` uint8.

    Raises:
        UserError: it is no picture, or a damaged one.
    """
    return _with_picture(
        location, content, lambda picture: from_picture(picture, recipe)
    )


def header(
    source: Path | bytes, location: str | None = None
) -> tuple[tuple[int, int], str]:
    """Size (width, height) and Pillow's mode of a picture; the rest is not read.

    Args:
        source: a file, or the content of one.
        location: the file, for errors, where ``source`` is its content.

    Raises:
        UserError: it is no picture.
    """
    return _with_picture(
        str(location or source), source, lambda picture: (picture.size, picture.mode)
    )


Result = TypeVar("Result")


def _with_picture(
    location: str, source: Path | bytes, use: Callable[[Image.Image], Result]
) -> Result:
    """Opens a picture; every failure, of ``use`` as well, is one line for the user."""
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(file) as picture:
            return use(picture)
    except UnidentifiedImageError:
        reason = "it has no known format"
    except Exception as error:  # damaged content can fail in any way
        reason = " ".join(str(error).split())
    raise UserError(f"{location} cannot be read as a picture: {reason}")


def from_arrays(images: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Applies a recipe to images in memory.

    Args:
        images: ``[n, H, W, C]`` uint8, C 1 or 3.
        recipe: size, channels and crop.

    Returns:
        ``[n, H', W', C']``; ``images`` itself where there is nothing to do.
    """
    num, height, width, channels = images.shape
    size = recipe.size
    if recipe.channels == channels and size in (None, height) and size in (None, width):
        return images
    shape = (height, width) if size is None else (size, size)
    result = np.empty((num, *shape, recipe.channels), np.uint8)
    for i, image in enumerate(images.squeeze(-1) if channels == 1 else images):
        result[i] = from_picture(Image.fromarray(image), recipe)
    return result


Item = TypeVar("Item")


def stream(
    items: Sequence[Item], decode: Callable[[Item], np.ndarray], title: str
) -> Iterator[np.ndarray]:
    """Decodes in parallel and in order, a chunk at a time, with a progress bar.

    Args:
        items: arguments of ``decode``.
        decode: from an item to an array; called by several threads at once.
        title: of the bar, which is shown on a terminal only.

    Yields:
        ``[m, ...]``: the arrays of up to 256 items.
    """
    with (
        ThreadPoolExecutor(os.cpu_count()) as threads,
        tqdm.tqdm(
            total=len(items), desc=title, unit="image", disable=not sys.stderr.isatty()
        ) as bar,
    ):
        for start in range(0, len(items), _CHUNK):
            chunk = items[start : start + _CHUNK]
            yield np.stack(list(threads.map(decode, chunk)))
            bar.update(len(chunk))
