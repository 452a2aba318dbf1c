"""Pictures made here."""

import io
from typing import Any

import numpy as np
from PIL import Image


def picture(width: int, height: int, seed: int, mode: str = "RGB") -> Image.Image:
    """Smooth colors, another picture for every seed."""
    generator = np.random.Generator(np.random.Philox(seed))
    coarse = generator.integers(0, 256, (4, 4, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize((width, height)).convert(mode)


def encoded(image: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    """A picture's file."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()
