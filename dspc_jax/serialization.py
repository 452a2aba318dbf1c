"""Saving and loading: one versioned file with configuration and parameters.

The file is a NumPy ``.npz`` archive of plain arrays, stored as they are: ``header``
(JSON text as bytes) and one array per parameter. Nothing is pickled, so a file from a
stranger can at worst be refused, and that before anything larger than the file is
built. Only this module and `dspc_jax.ports` open files.
"""

import dataclasses
import json
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax import leaves, parameters, registry
from dspc_jax.arguments import instance, shown
from dspc_jax.circuit import CircuitConfig, build, product_graph
from dspc_jax.flows.flow import FlowConfig
from dspc_jax.flows.transformed import TransformedConfig
from dspc_jax.layers import input_layer
from dspc_jax.leaves import joining
from dspc_jax.ops.float_types import FLOAT_TYPES, float_type, widened
from dspc_jax.safe_files.numpy_archives import NumpyArchive
from dspc_jax.structure import chains, image_families, random_trees, region_graph
from dspc_jax.structure.folding import fold
from dspc_jax.structure.lifted_inputs import lift_inputs
from dspc_jax.structure.pairs import in_pairs
from dspc_jax.structure.sums_first import sums_first
from dspc_jax.types import PyTree

FORMAT = "dspc_jax circuit"
VERSION = 6
"""In files of version 1 every distinct leaf has arrays of its own; since version 2 the
leaves of a family share theirs (`dspc_jax.leaves.joining`). Until version 2 the sum
layer ``cp_t`` was called ``cp``. Until version 3 all products were of two, and an input
region that met an inner one always had a sum layer. Until version 4 nothing was tied:
a configuration without ties means that. Until version 5 all mixtures were learned,
which a configuration without ``mixing`` means, and sums over different numbers of
children had tables of their own."""
_MOST_HEADER_BYTES = 2**24
"""16 MiB: a region graph of 10,000 regions with 200 variables each takes half of it."""

_SMALL_WORK = 2**18
"""Partitions times variables, over 64, that any file may ask for: a chain of 5,000
variables, which nobody could compile."""

_SMALL_TIED = 2**17
"""Leaves or partitions that a file with tied parameters may ask for, however few of its
own it has: 256x256 pixels."""

for _cls in (
    *(CircuitConfig, TransformedConfig, FlowConfig, *leaves.FAMILIES),
    *(random_trees.RandomBinaryTrees, image_families.QuadTree),
    chains.HiddenMarkovChain,
    *(image_families.QuadGraph, image_families.PoonDomingos),
    *(region_graph.RegionGraph, region_graph.Partition),
):
    registry.register(_cls)


def save(
    path: str | os.PathLike[str],
    config: CircuitConfig | TransformedConfig,
    params: PyTree,
) -> None:
    """Writes a circuit to one file; a crash leaves the old file or the new, never half.

    Args:
        path: the file, of this machine (``~`` is the home folder); an existing one is
            replaced.
        config: the circuit's configuration (``circuit.config``), also of a transformed
            one. Types of your own are registered before (`dspc_jax.register`).
        params: its parameters, all of one of the types `FLOAT_TYPES`.

    Raises:
        ValueError: the parameters are not those of this configuration, or it holds a
            type that is not registered, or the path is a remote one.
        OSError: the file cannot be written.
    """
    _check_config(config)
    arrays = {name: np.asarray(array) for name, array in _named(params).items()}
    _check_arrays("params", _named(_shapes(config, VERSION)), arrays)
    widened(params)
    header = {
        "format": FORMAT,
        "version": VERSION,
        "config": registry.to_json(config),
    }
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    path = _local(path)
    temporary = f"{path}.{os.urandom(4).hex()}.part"
    try:
        with open(temporary, "xb") as file:
            entries: dict[str, Any] = {"header": text, **_without_types(arrays)}
            np.savez(file, **entries)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def load(
    path: str | os.PathLike[str],
    config: CircuitConfig | TransformedConfig | None = None,
    *,
    dtype: Any = None,
) -> tuple[Any, PyTree]:
    """Reads a circuit; `dspc_jax.build` makes it from the configuration.

    Args:
        path: a file that `save` wrote. ``~`` is the home folder.
        config: the configuration that the file must have, or None for any.
        dtype: of the parameters, one of `FLOAT_TYPES`; None: that of new parameters
            (float32, or float64 under ``jax_enable_x64``). Values are rounded to it.

    Returns:
        The configuration and the parameters.

    Raises:
        ValueError: not such a file, a damaged one, a version that this library does not
            know, types that are not registered, another configuration than ``config``,
            or parameters that do not fit the configuration; one line that names the
            difference. Such a file is refused before anything is built or read that is
            larger than the file.
        OSError: the file cannot be read.
    """
    dtype = float_type(dtype)
    path = _local(path)
    if config is not None:
        _check_config(config)
    with open(path, "rb") as file:
        try:
            archive = NumpyArchive(file)
            stored, version = _read_header(archive)
            _check_size(stored, archive)
            if version < 4:
                stored = registry.checked(lambda: _in_pairs(stored), "structure")
            expected = registry.checked(lambda: _shapes(stored, version), "config")
            names = _named(expected)
            _check_arrays("its arrays", names, _parameters(archive))
            if config is not None and stored != config:
                raise ValueError(f"its config must be config, got {_short(stored)}")
            values = [_array(archive.read(name), dtype) for name in names]
        except ValueError as error:
            raise ValueError(
                f"path must be a whole file of {FORMAT!r}, got {path}: {error}"
            ) from error
    params = jax.tree.unflatten(jax.tree.structure(expected), values)
    return stored, _refolded(stored, params, version)


def _read_header(
    archive: NumpyArchive,
) -> tuple[CircuitConfig | TransformedConfig, int]:
    """The configuration, and the version of the file."""
    header = archive.headers.get("header")
    if header is None or header.dtype != np.uint8 or len(header.shape) != 1:
        raise ValueError("it must have a header of bytes, got none")
    if header.shape[0] > _MOST_HEADER_BYTES:
        raise ValueError(
            f"its header must have at most {_MOST_HEADER_BYTES} bytes, got "
            f"{header.shape[0]}"
        )
    text = archive.read("header").tobytes()
    parsed = registry.checked(lambda: json.loads(text), "its header")
    if not isinstance(parsed, dict) or parsed.keys() != {"format", "version", "config"}:
        raise ValueError("its header must have format, version and config, got others")
    if b'"FlowConfig"' in text:
        _import_flows()
    if parsed["format"] != FORMAT or parsed["version"] not in range(1, VERSION + 1):
        raise ValueError(
            f"it must be {FORMAT!r} of version 1 to {VERSION}, got "
            f"{_short(parsed['format'])} of version {_short(parsed['version'])}"
        )
    config = registry.checked(lambda: registry.from_json(parsed["config"]), "config")
    if not isinstance(config, CircuitConfig | TransformedConfig):
        raise ValueError(f"config must be of a circuit, got {_short(config)}")
    version = int(parsed["version"])
    return (_renamed(config) if version < 3 else config), version


def _renamed(
    config: CircuitConfig | TransformedConfig,
) -> CircuitConfig | TransformedConfig:
    """The configuration of an older file, whose ``cp`` is ``cp_t`` now."""
    if isinstance(config, TransformedConfig):
        return dataclasses.replace(config, circuit=_renamed(config.circuit))
    old = config.sum_layer == "cp"
    return dataclasses.replace(config, sum_layer="cp_t") if old else config


def _in_pairs(
    config: CircuitConfig | TransformedConfig,
) -> CircuitConfig | TransformedConfig:
    """The configuration of an older file, with the products that it had in its graph.

    It stays as it is where today's circuit has the same.
    """
    if isinstance(config, TransformedConfig):
        circuit = _in_pairs(config.circuit)
        return dataclasses.replace(config, circuit=circuit)
    graph = config.structure.region_graph()
    if config.sum_layer == "cp":
        graph = sums_first(graph)
    old = lift_inputs(in_pairs(graph))
    if old == product_graph(config):
        return config
    return dataclasses.replace(config, structure=old, sum_layer="cp_t")


def _import_flows() -> object:
    """Makes the library's flows known; they need Flax, which is slow to import."""
    from dspc_jax.flows import ladder

    return ladder


def _check_size(
    config: CircuitConfig | TransformedConfig, archive: NumpyArchive
) -> None:
    """Refuses what the file's parameters cannot be enough for, without building it.

    A circuit has a leaf for each unit and channel of a variable, for every repetition;
    a weight for each partition, and an array for each level (but many heights of a deep
    tree are one).
    """
    headers = _parameters(archive)
    count = sum(int(np.prod(header.shape, dtype=object)) for header in headers.values())
    circuit = config
    if isinstance(config, TransformedConfig):
        circuit = config.circuit
        sizes = config.flow.sizes
        _at_least(sizes.get("num_steps", 0), len(headers), "arrays for its flow")
        _at_least(max(sizes.values(), default=0), count, "numbers for its flow")
    assert isinstance(circuit, CircuitConfig)
    structure, leaf = circuit.structure, circuit.leaf
    if (circuit.tie_leaves, circuit.tie_sums) != ("none", "none"):
        count = max(count, _SMALL_TIED)
    own = leaf if isinstance(leaf, tuple) else (leaf,)
    per_example = sum(map(_leaf_size, own))
    if not isinstance(leaf, tuple):
        per_example *= structure.num_variables
    trees = getattr(structure, "num_repetitions", 1)
    num_leaves = circuit.num_leaves * circuit.num_channels * trees * per_example
    _at_least(max(num_leaves, circuit.num_classes), count, "numbers for its leaves")
    graph = registry.checked(structure.region_graph, "structure")
    _at_least(len(graph.partitions), count, "numbers for its partitions")
    work = sum(len(graph.scopes[p.region]) for p in graph.partitions)
    _at_least(work // 64 - _SMALL_WORK, count, "numbers for regions as large")


def _at_least(needed: int, count: int, what: str) -> None:
    if needed > count:
        raise ValueError(f"it must have {needed:.4g} {what}, got {count}")


def _leaf_size(leaf: Any) -> int:
    """At most the number of parameters of one leaf; of the library's, quickly."""
    if isinstance(leaf, leaves.Categorical):
        return leaf.num_values
    if isinstance(leaf, leaves.Histogram):
        return len(leaf.edges) - 1
    if isinstance(leaf, leaves.ZeroInflated):
        return 1 + _leaf_size(leaf.leaf)
    if isinstance(leaf, leaves.FAMILIES):
        return 1
    shapes = registry.checked(
        lambda: jax.eval_shape(
            lambda: leaf.init(jax.random.key(0), (1, 1, 1, 1)),
        ),
        "leaf",
    )
    return sum(int(np.prod(shape.shape)) for shape in jax.tree.leaves(shapes))


def _shapes(config: CircuitConfig | TransformedConfig, version: int) -> PyTree:
    """The tree of shapes and types of new parameters, in files of this version."""
    if isinstance(config, CircuitConfig):
        return parameters.shapes(_layout(config, version))
    circuit, flow = config.circuit, build(config).flow
    example = (circuit.structure.num_variables, circuit.num_channels)
    shapes = jax.eval_shape(
        lambda: flow.init(jax.random.key(0), jnp.zeros((2, *example)))
    )
    return {"circuit": _shapes(circuit, version), "flow": shapes}


def _layout(config: CircuitConfig, version: int) -> parameters.Layout:
    layout = build(config).layout
    if version >= 6:
        return layout
    graph = fold(product_graph(config), in_steps=version > 1)
    layout = dataclasses.replace(layout, graph=graph)
    if version > 1:
        return layout
    blocks = input_layer.make_blocks(
        graph.input_scopes, config.leaves, joining.equal(config.leaves)
    )
    return dataclasses.replace(layout, blocks=blocks)


def _refolded(
    config: CircuitConfig | TransformedConfig, params: PyTree, version: int
) -> PyTree:
    """Parameters of an older file as they are now."""
    if isinstance(config, TransformedConfig):
        circuit = _refolded(config.circuit, params["circuit"], version)
        return params | {"circuit": circuit}
    if version >= 6 or config.tie_sums != "none":  # tied ones have no levels
        return params
    old, new = _layout(config, version), _layout(config, VERSION)
    if version == 1:
        leaves = input_layer.regrouped(
            old.blocks, params.leaves, new.blocks, parameters.shapes(new).leaves
        )
        params = params._replace(leaves=leaves)
    return parameters.in_levels(new, params)


def _check_arrays(owner: str, expected: dict[str, Any], arrays: dict[str, Any]) -> None:
    """Refuses arrays of other names, shapes or types."""
    if difference := sorted(expected.keys() ^ arrays.keys()):
        raise ValueError(
            f"{owner} must be those of the config, got a difference in "
            f"{_short(difference)}"
        )
    for name, shape in expected.items():
        if arrays[name].shape != shape.shape:
            raise ValueError(
                f"{owner} must have {name} of shape {shape.shape}, got "
                f"{arrays[name].shape}"
            )
        _check_dtype(name, arrays[name].dtype)


def _check_config(config: Any) -> None:
    if not isinstance(config, TransformedConfig):
        instance("config", config, CircuitConfig)


def _local(path: str | os.PathLike[str]) -> str:
    """A path of this machine; ``~`` is the home folder. Refuses remote ones."""
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"path must be the path of a file, got {shown(path)}")
    text = os.path.expanduser(os.fspath(path))
    if "://" in text:
        raise ValueError(f"path must be one of this machine, got {shown(text)}")
    return text


def _check_dtype(name: str, dtype: np.dtype) -> None:
    if dtype == np.dtype("V2"):
        dtype = np.dtype(jnp.bfloat16)
    if dtype.name not in FLOAT_TYPES:
        raise ValueError(
            f"{name} must be of a type among {FLOAT_TYPES}, got {dtype.name}"
        )


def _without_types(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Bfloat16, which files of NumPy do not know, as pairs of bytes."""
    return {
        name: array.view("V2") if array.dtype == jnp.bfloat16 else array
        for name, array in arrays.items()
    }


def _array(values: np.ndarray, dtype: Any) -> jax.Array:
    """Reverses `_without_types`, and converts."""
    if values.dtype == np.dtype("V2"):
        values = values.view(jnp.bfloat16)
    return jnp.asarray(values.astype(dtype))


def _parameters(archive: NumpyArchive) -> dict[str, Any]:
    return {name: h for name, h in archive.headers.items() if name != "header"}


def _named(params: PyTree) -> dict[str, Any]:
    """Leaves by path, such as ``params.sums[0][1]``, in tree order."""
    return {
        f"params{jax.tree_util.keystr(path)}": leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 100 else f"{text[:100]}..."
