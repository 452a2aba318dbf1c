"""The codec that a leaf family of the flags needs."""

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
