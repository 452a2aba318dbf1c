"""The codec that a leaf family of the flags needs, and levels as pictures."""

import numpy as np

from dspc_jax.evaluation import Codec, binary_codec, level_codec, uniform_codec

_CODECS = {
    "binomial": level_codec,
    "categorical": level_codec,
    "discretized_logistic": level_codec,
    "bernoulli": binary_codec,
    "normal": uniform_codec,
}


def preprocessing(leaf: str, num_values: int) -> Codec:
    """The codec of a leaf family.

    Args:
        leaf: the family, a value of ``--leaf``.
        num_values: levels of a channel.

    Returns:
        The codec.

    Raises:
        ValueError: an unknown family.
    """
    if leaf not in _CODECS:
        raise ValueError(f"leaf must be one of {sorted(_CODECS)}, got {leaf!r}")
    return _CODECS[leaf](num_values)


def to_images(
    levels: np.ndarray, height: int, width: int, num_values: int
) -> np.ndarray:
    """Levels of images as 8-bit pictures.

    Args:
        levels: ``[n, V, C]`` uint8 with V = height * width.
        height: rows.
        width: columns.
        num_values: levels of a channel; the highest becomes 255.

    Returns:
        ``[n, height, width, C]`` uint8.
    """
    grey = np.round(levels.astype(np.float32) * (255.0 / (num_values - 1)))
    return grey.astype(np.uint8).reshape(len(levels), height, width, levels.shape[-1])
