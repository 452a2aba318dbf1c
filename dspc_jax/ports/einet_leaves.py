"""The leaves of simple-einet's checkpoints, and of Lang et al.'s."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from dspc_jax.arguments import shown
from dspc_jax.leaves import Bernoulli, Binomial, Categorical, Leaf, Normal

_IGNORED = "marginalization_constant"


class LeafFields(NamedTuple):
    """The parameters of all leaves by our names.

    Attributes:
        arrays: ``[C, V, K, R]``, of categorical leaves ``[C, V, K, R, M]``.
    """

    arrays: Mapping[str, np.ndarray]

    @property
    def names(self) -> list[str]:
        """Of the fields."""
        return list(self.arrays)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Channels, variables, leaves of a region, repetitions."""
        num_channels, num_variables, num_leaves, num_repetitions, *_ = next(
            iter(self.arrays.values())
        ).shape
        return num_channels, num_variables, num_leaves, num_repetitions

    def at(self, name: str, variable: int, repetition: int) -> np.ndarray:
        """``[K, C]``, or ``[K, C, M]``."""
        return np.moveaxis(self.arrays[name][:, variable, :, repetition], 0, 1)


def fields(
    tensors: Mapping[str, np.ndarray], prefix: str, leaf: Leaf | tuple[Leaf, ...]
) -> LeafFields:
    """The parameters of a file's leaves as those of a family.

    Args:
        tensors: of the leaves.
        prefix: of their names.
        leaf: the family.

    Returns:
        The parameters.

    Raises:
        ValueError: the file has those of another family, or their values are out of
            the family's bounds; one line.
    """
    names = tuple(
        sorted(name for k in tensors if (name := k.removeprefix(prefix)) != _IGNORED)
    )
    dims = {tensors[prefix + name].ndim for name in names}
    known = _FAMILIES.get((names, *dims))
    if known is None or not isinstance(leaf, known):
        has = " and ".join(
            f"{prefix}{name}{tensors[prefix + name].shape}" for name in names
        )
        wanted = " or ".join(each.__name__ for each in known or _ALL)
        raise ValueError(f"leaf must be {wanted} with {has}, got {shown(leaf)}")
    arrays = {}
    for name in names:
        array = tensors[prefix + name].astype(np.float64)
        if len(array) != 1 or array.shape != tensors[prefix + names[0]].shape:
            raise ValueError(
                f"{prefix}{name} must be of shape (1, channels, variables, leaves, "
                f"repetitions), got {array.shape}"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"{prefix}{name} must be finite, got other values")
        arrays[name] = array[0]
    if isinstance(leaf, Normal):
        return LeafFields(
            {"mean": arrays.pop("means"), "scale_logit": _scale_logit(arrays, leaf)}
        )
    (logits,) = arrays.values()
    if isinstance(leaf, Categorical) and logits.shape[-1] != leaf.num_values:
        raise ValueError(
            f"leaf must be Categorical({logits.shape[-1]}), got {shown(leaf)}"
        )
    return LeafFields({"logits": logits})


_ALL = (Binomial, Bernoulli, Categorical, Normal)
_FAMILIES = {
    # simple-einet's Binomial; its Bernoulli has logits that it calls probs, and so do
    # both families of Lang et al.
    (("logits",), 5): (Binomial,),
    (("probs",), 5): (Binomial, Bernoulli),
    (("logits",), 6): (Categorical,),
    (("logvar", "means"), 5): (Normal,),
    (("log_stds", "means"), 5): (Normal,),
    (("means", "stds"), 5): (Normal,),
}
"""Names of the parameters, and the number of their axes, to the families."""


def _scale_logit(arrays: Mapping[str, np.ndarray], leaf: Normal) -> np.ndarray:
    """Our unbounded parameter of the deviation."""
    low, high = leaf.min_scale, leaf.max_scale
    if "stds" in arrays:
        if high is None:
            raise ValueError(
                "leaf must be Normal(min_sigma, max_sigma) with leaf.base_leaf.stds, "
                f"got {shown(leaf)}"
            )
        return arrays["stds"]  # the same function of it
    if "logvar" in arrays:
        scale = np.exp(0.5 * arrays["logvar"])
    else:
        scale = np.exp(arrays["log_stds"])
    if scale.min() <= low or (high is not None and scale.max() >= high):
        raise ValueError(
            "leaf must have bounds around the file's deviations, from "
            f"{scale.min():.3g} to {scale.max():.3g}, got {shown(leaf)}"
        )
    if high is None:
        return np.log(scale - low)
    return np.log(scale - low) - np.log(high - scale)
