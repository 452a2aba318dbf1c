"""The codec that a leaf family of the flags needs."""

from dspc_jax.evaluation import (
    NUM_COLOR_VALUES,
    Codec,
    binary_codec,
    color_codec,
    level_codec,
    num_wavelet_values,
    uniform_codec,
    wavelet_codec,
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
        UserError: --colors or --wavelets does not fit the leaves or the images.
    """
    needs_levels = {"colors": "rgb", "wavelets": "none"}
    for name, plain in needs_levels.items():
        value = getattr(settings, name)
        if value != plain and _CODECS[settings.leaf] is not level_codec:
            raise UserError(
                f"--{name} must be {plain} with leaves that take no levels, got "
                f"{value!r} with --leaf={settings.leaf}"
            )
    ycocg = settings.colors == "ycocg"
    if ycocg and (dataset.num_channels, dataset.num_values) != (3, 256):
        raise UserError(
            "--colors must be rgb for images without three channels of 256 levels, got "
            f"{settings.colors!r} for {dataset.name}"
        )
    if settings.wavelets != "none":
        if dataset.is_table:
            raise UserError(
                "--wavelets must be none for a table, got "
                f"{settings.wavelets!r} for {dataset.name}"
            )
        return wavelet_codec(
            *(dataset.height, dataset.width),
            kind=settings.wavelets,
            num_values=dataset.num_values,
            ycocg=ycocg,
        )
    if ycocg:
        return color_codec()
    return preprocessing(settings.leaf, dataset.num_values)


def num_leaf_values(settings: Settings, dataset: Dataset) -> int:
    """The values of a discrete leaf; raises as `codec_of`."""
    codec_of(settings, dataset)
    ycocg = settings.colors == "ycocg"
    if settings.wavelets != "none":
        return num_wavelet_values(settings.wavelets, dataset.num_values, ycocg=ycocg)
    return NUM_COLOR_VALUES if ycocg else dataset.num_values
