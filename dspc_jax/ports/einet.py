"""Checkpoints of simple-einet, and of the published code of Lang et al. 2022.

Both keep one tensor a layer, with all regions and repetitions in it. A file has the
scopes of the input regions, or a permutation of the variables; what it lacks is the
leaf family: the number of trials, bounds of the deviation.

References:
    simple-einet, https://github.com/braun-steven/simple-einet (state of 2025-01).
    Lang et al., "Elevating Perceptual Sample Quality in Probabilistic Circuits through
    Differentiable Sampling", 2022, https://github.com/ml-research/differentiable-sampling-pc.
"""

import os
import pathlib
import re
from typing import Any, NamedTuple

import numpy as np

from dspc_jax.arguments import shown
from dspc_jax.circuit import CircuitConfig, build
from dspc_jax.leaves import Leaf
from dspc_jax.ops.float_types import float_type
from dspc_jax.parameters import CircuitParams
from dspc_jax.ports import einet_leaves
from dspc_jax.ports.neutral import Numbers, arranged
from dspc_jax.safe_files import read_tensors
from dspc_jax.structure.region_graph import Partition, RegionGraph

_LEAF = "leaf.base_leaf."
_LAYER = re.compile(r"((?:einsum_)?layers)\.(\d+)\.(?:logits|weights)")
_UNUSED = re.compile(
    r"(.*\.)?(dropout|marginalization_constant|unraveled_channel_indices(_oh_[01])?)"
    r"|_(class_)?sampling_root\..*|leaf\.inverse_permutation"
)
"""What no likelihood depends on: dropout, tables for sampling."""


class _Layer(NamedTuple):
    """The weights of a layer, and what kind it is.

    Attributes:
        name: of the tensor.
        weights: ``[D, O, R, I, I]`` of an einsum layer, else ``[D, I, O, R]``.
    """

    name: str
    weights: np.ndarray

    @property
    def is_einsum(self) -> bool:
        return self.weights.ndim == 5

    @property
    def num_out(self) -> int:
        return self.weights.shape[1 if self.is_einsum else 2]

    def logits(self, feature: int, repetition: int) -> np.ndarray:
        """``[O, I, I]``, or ``[O, I]``."""
        if self.is_einsum:
            return self.weights[feature, :, repetition]
        return self.weights[feature, :, :, repetition].T


def from_einet(
    path: str | os.PathLike[str], leaf: Leaf, *, dtype: Any = None
) -> tuple[CircuitConfig, CircuitParams]:
    """Reads a state dictionary of simple-einet, or of Lang et al.'s published code.

    Layers of kind einsum, linsum and linsum2 on a top-down structure, any depth and
    number of repetitions and classes. The likelihood given a class is theirs (their
    ``forward``); the classes have equal weights. Their samplers differ where they do
    not follow their own densities.

    Args:
        path: a file that ``torch.save(net.state_dict(), path)`` wrote; it is read
            without torch, and nothing in it is executed. ``~`` is the home folder.
        leaf: the family, of which a file has parameters only:
            ``Binomial(total_count)``, ``Bernoulli()``, ``Categorical(num_bins)``; for
            their ``RatNormal`` ``Normal(min_sigma, max_sigma)`` (bounds of the mean are
            not supported), for their ``Normal``, which has no bounds, such that contain
            all its deviations, e.g. ``Normal(1e-4)``.
        dtype: of the parameters, as of `dspc_jax.load`.

    Returns:
        The configuration, whose structure is a `RegionGraph` and whose variables are
        the file's, and the parameters: as `dspc_jax.load` does.

    Raises:
        ValueError: not such a file, tensors that are missing, unknown or of other
            shapes, an empty input region, or a leaf that does not fit; one line.
        OSError: the file cannot be read.
    """
    dtype = float_type(dtype)
    data = pathlib.Path(os.path.expanduser(path)).read_bytes()
    tensors = _without_prefix(read_tensors(data))
    leaves = einet_leaves.fields(
        {k: v for k, v in tensors.items() if k.startswith(_LEAF)}, _LEAF, leaf
    )
    num_channels, num_variables, num_leaves, num_repetitions = leaves.shape
    layers, owner = _layers(tensors), _owner(tensors, num_variables, num_repetitions)
    _check_names(tensors, layers, num_repetitions)
    _check_shapes(layers, owner, num_leaves)
    graph, sums, roots = _graph(layers, owner)
    mixtures = {}
    num_classes = layers[-1].num_out
    if num_repetitions > 1:
        name = "mixing.logits" if "mixing.logits" in tensors else "mixing.weights"
        logits = _tensor(tensors, name, (1, num_classes, num_repetitions))
        mixtures = {root: logits[0, :, r] for r, root in enumerate(roots)}
    regions = {
        (region, v): {name: leaves.at(name, v, r) for name in leaves.names}
        for r in range(num_repetitions)
        for region, scope in _inputs(owner, r)
        for v in scope
    }
    inner = [len(own) for n, own in enumerate(sums) if n not in roots]
    config = CircuitConfig(
        structure=graph,
        leaf=leaf,
        num_channels=num_channels,
        num_leaves=num_leaves,
        num_sums=max(inner, default=num_leaves),
        num_classes=num_classes,
        sum_layer="tucker" if layers[0].is_einsum else "cp_t",
    )
    return config, arranged(build(config), Numbers(regions, sums, mixtures), dtype)


# ---- the file --------------------------------------------------------------------


def _without_prefix(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Names as of the network itself, which may be a part of another module."""
    found = next((name for name in tensors if _LEAF in name), None)
    if found is None:
        raise ValueError(
            f"the file must have tensors {_LEAF}... of a top-down Einet, got "
            f"{shown(', '.join(tensors))}"
        )
    prefix = found[: found.index(_LEAF)]
    others = [name for name in tensors if not name.startswith(prefix)]
    if others:
        raise ValueError(
            f"all tensors must be those of {prefix!r}, got {shown(others[0])}"
        )
    return {name.removeprefix(prefix): value for name, value in tensors.items()}


def _tensor(
    tensors: dict[str, np.ndarray], name: str, shape: tuple[int, ...]
) -> np.ndarray:
    """A tensor that must be there, in float64."""
    if name not in tensors:
        raise ValueError(f"the file must have a tensor {name}, got none")
    if tensors[name].shape != shape:
        raise ValueError(f"{name} must be of shape {shape}, got {tensors[name].shape}")
    return tensors[name].astype(np.float64)


def _layers(tensors: dict[str, np.ndarray]) -> list[_Layer]:
    """The layers from the input regions up."""
    found = {}
    for name, value in tensors.items():
        if match := _LAYER.fullmatch(name):
            if value.ndim not in (4, 5):
                raise ValueError(
                    f"{name} must have 4 or 5 axes, got shape {value.shape}"
                )
            found[int(match[2])] = _Layer(name, value.astype(np.float64))
    if not found or sorted(found) != list(range(len(found))):
        raise ValueError(
            f"the file must have tensors layers.0.logits and on, got layers {[*found]}"
        )
    return [found[number] for number in range(len(found))]


def _check_names(
    tensors: dict[str, np.ndarray], layers: list[_Layer], num_repetitions: int
) -> None:
    """Refuses what would be left out."""
    known = {"leaf.scopes", "leaf.permutation", *(layer.name for layer in layers)}
    if num_repetitions > 1:
        known |= {"mixing.logits", "mixing.weights"}
    for name in tensors:
        is_known = name in known or name.startswith(_LEAF) or _UNUSED.fullmatch(name)
        if not is_known:
            raise ValueError(
                f"all tensors must be those of a top-down Einet, got {shown(name)}"
            )


def _owner(
    tensors: dict[str, np.ndarray], num_variables: int, num_repetitions: int
) -> np.ndarray:
    """Which variables are in which input region: bool ``[V, F, R]``."""
    layers = _layers(tensors)
    only_sums = len(layers) == 1 and layers[0].weights.ndim == 4
    # Of one linsum layer on two regions, or of a sum on one (a depth of 0), the second:
    # unit by unit, both are the same mixture of products.
    is_flat = only_sums and len(layers[0].weights) == 1
    if "leaf.scopes" in tensors:
        scopes = tensors["leaf.scopes"]
        num_regions = scopes.shape[1] if scopes.ndim == 3 else 2 ** len(layers)
        scopes = _tensor(
            tensors, "leaf.scopes", (num_variables, num_regions, num_repetitions)
        )
        if not (np.isin(scopes, (0, 1)).all() and (scopes.sum(1) == 1).all()):
            raise ValueError("leaf.scopes must put every variable into one region")
        owner = scopes == 1
        # simple-einet's forward then leaves the variables in their order.
        if num_regions == num_variables and layers[0].name.startswith("layers"):
            identity = np.eye(num_variables, dtype=bool)
            owner = np.repeat(identity[:, :, None], num_repetitions, 2)
    else:
        num_regions = 1 if is_flat else 2 ** len(layers)
        size = -(-num_variables // num_regions)
        order = _tensor(tensors, "leaf.permutation", (size * num_regions,))
        if num_repetitions != 1 or sorted(order) != list(range(len(order))):
            raise ValueError("leaf.permutation must be one, of one repetition")
        owner = np.zeros((num_variables, num_regions, 1), bool)
        for place, variable in enumerate(order.astype(int)):
            if variable < num_variables:  # else a place without one
                owner[variable, place // size, 0] = True
    if num_regions != 2 ** len(layers) and not (is_flat and num_regions == 1):
        raise ValueError(
            f"{len(layers)} layers must be on {2 ** len(layers)} input regions, got "
            f"{num_regions}"
        )
    if not owner.any(0).all():
        raise ValueError("every input region must have a variable, got one without")
    return owner


def _check_shapes(layers: list[_Layer], owner: np.ndarray, num_leaves: int) -> None:
    """Refuses layers that do not fit their regions and one another."""
    _, num_regions, num_repetitions = owner.shape
    num_in, num_hidden = num_leaves, layers[0].num_out
    factors = len(layers[0].weights) == num_regions > 1  # linsum2
    for number, layer in enumerate(layers):
        num_features = num_regions >> number + (not factors)
        num_features = max(num_features, 1)
        is_last = number == len(layers) - 1
        num_out = layer.num_out if is_last else num_hidden
        if layers[0].is_einsum:
            shape = (num_features, num_out, num_repetitions, num_in, num_in)
        else:
            shape = (num_features, num_in, num_out, num_repetitions)
        if layer.weights.shape != shape:
            raise ValueError(
                f"{layer.name} must be of shape {shape}, got {layer.weights.shape}"
            )
        num_in = num_out


# ---- the circuit -----------------------------------------------------------------


def _inputs(owner: np.ndarray, repetition: int) -> list[tuple[int, tuple[int, ...]]]:
    """The input regions of a repetition: number and scope. The root is region 0."""
    num_regions = owner.shape[1]
    return [
        (
            1 + repetition * num_regions + f,
            tuple(np.flatnonzero(owner[:, f, repetition]).tolist()),
        )
        for f in range(num_regions)
    ]


def _graph(
    layers: list[_Layer], owner: np.ndarray
) -> tuple[RegionGraph, list[np.ndarray], list[int]]:
    """Regions, logits of the partitions, and the root's one of each repetition."""
    num_variables, num_regions, num_repetitions = owner.shape
    inputs = [_inputs(owner, r) for r in range(num_repetitions)]
    scopes = [tuple(range(num_variables))]
    scopes += [scope for each in inputs for _, scope in each]
    partitions: list[Partition] = []
    sums: list[np.ndarray] = []
    roots: list[int] = []

    def add(children: tuple[int, ...], logits: np.ndarray, is_root: bool) -> int:
        region = 0 if is_root else len(scopes)
        if is_root:
            roots.append(len(partitions))
        else:
            scopes.append(tuple(sorted(v for child in children for v in scopes[child])))
        partitions.append(Partition(region, children))
        sums.append(logits)
        return region

    sums_first = len(layers[0].weights) == num_regions > 1  # linsum2
    for r in range(num_repetitions):
        groups = [(region,) for region, _ in inputs[r]]
        for number, layer in enumerate(layers):
            is_last = number == len(layers) - 1
            if not sums_first and len(groups) > 1:
                groups = _pairs(groups)
            regions = [
                add(group, layer.logits(f, r), is_last and not sums_first)
                for f, group in enumerate(groups)
            ]
            groups = [(region,) for region in regions]
            if sums_first:  # and the product of a pair meets the sums of the next layer
                groups = _pairs(groups)
        if sums_first:
            num_classes = layers[-1].num_out
            with np.errstate(divide="ignore"):
                add(groups[0], np.log(np.eye(num_classes)), True)
    return RegionGraph(num_variables, scopes, partitions), sums, roots


def _pairs(groups: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Neighbors joined."""
    return [a + b for a, b in zip(groups[::2], groups[1::2], strict=True)]
