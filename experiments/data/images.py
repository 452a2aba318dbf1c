"""Pictures to arrays: crop, size, colors. Pillow reads and resizes."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
import io
import os
from pathlib import Path
import sys
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError
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


def as_shown(picture: Image.Image) -> Image.Image:
    """A picture as viewers show it, by what its file says beside the stored values.

    It is turned as its orientation tag asks, its colors are those of sRGB where an
    embedded profile says what they are, and it lies on white where it is transparent.

    Args:
        picture: as stored.

    Returns:
        The picture, gray or RGB if one of the three was to be done.
    """
    picture = ImageOps.exif_transpose(picture)
    profile = picture.info.get("icc_profile")
    opacity = None
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        opacity = picture.getchannel("A")
        picture = picture.convert("RGB")
    if profile:
        picture = _in_srgb(picture, profile)
    if opacity is not None:
        white = Image.new(picture.mode, picture.size, "white")
        picture = Image.composite(picture, white, opacity)
    return picture


def _in_srgb(picture: Image.Image, profile: bytes) -> Image.Image:
    """The picture in sRGB; as it is where its profile is broken or does not fit."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return picture
        target = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(picture, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return picture
    assert converted is not None  # it is where the picture is not changed in place
    return converted


def _shown_size(picture: Image.Image) -> tuple[int, int]:
    """Width and height after `as_shown`."""
    turned = picture.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    # Pillow gives the sizes of TIFF files as shown.
    if turned and picture.format != "TIFF":
        return picture.size[1], picture.size[0]
    return picture.size


def from_file(location: str, content: bytes, recipe: Recipe) -> np.ndarray:
    """Reads a picture in any format that Pillow knows, and applies a recipe.

    Args:
        location: the file, for errors.
        content: of the file; orientation, profile and transparency count, see
            `as_shown`.
        recipe: size, channels and crop.

    Returns:
        ``[H, W, C]`` uint8.

    Raises:
        UserError: it is no picture, or a damaged one.
    """
    return _with_picture(
        location, content, lambda picture: from_picture(as_shown(picture), recipe)
    )


def header(
    source: Path | bytes, location: str | None = None
) -> tuple[tuple[int, int], str]:
    """Size (width, height) as shown, and Pillow's mode; the rest is not read.

    Args:
        source: a file, or the content of one.
        location: the file, for errors, where ``source`` is its content.

    Raises:
        UserError: it is no picture.
    """
    return _with_picture(
        str(location or source),
        source,
        lambda picture: (_shown_size(picture), picture.mode),
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
