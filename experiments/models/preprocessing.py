"""The codec that a leaf family of the flags needs."""

from dspc_jax.evaluation import (
    NUM_COLOR_VALUES,
    Codec,
    binary_codec,
    color_codec,
    level_codec,
    uniform_codec,
)
from experiments.console.errors import UserError
from experiments.data import Dataset
from experiments.engine.flags import Settings

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


def codec_of(settings: Settings, dataset: Dataset) -> Codec:
    """The codec of a circuit's leaves.

    Args:
        settings: the shared flags.
        dataset: the images.

    Returns:
        The codec.

    Raises:
        UserError: --colors does not fit the leaves or the images.
    """
    if settings.colors == "rgb":
        return preprocessing(settings.leaf, dataset.num_values)
    if _CODECS[settings.leaf] is not level_codec:
        raise UserError(
            "--colors must be rgb with leaves that take no levels, got "
            f"{settings.colors!r} with --leaf={settings.leaf}"
        )
    if (dataset.num_channels, dataset.num_values) != (3, 256):
        raise UserError(
            "--colors must be rgb for images without three channels of 256 levels, got "
            f"{settings.colors!r} for {dataset.name}"
        )
    return color_codec()


def num_leaf_values(settings: Settings, dataset: Dataset) -> int:
    """The values of a discrete leaf; raises as `codec_of`."""
    codec_of(settings, dataset)
    return dataset.num_values if settings.colors == "rgb" else NUM_COLOR_VALUES
