"""Saving and loading: one versioned file with configuration and parameters.

The file is a NumPy ``.npz`` archive of plain arrays: ``header`` (JSON text as bytes)
and one array per parameter. Nothing is pickled, so a file from a stranger can at worst
be refused. This is the only module of the library that touches files.
"""

import contextlib
import dataclasses
import json
import os
from typing import Any
import uuid
import zipfile

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax import leaves, parameters
from dspc_jax.arguments import instance, shown
from dspc_jax.circuit import CircuitConfig, build
from dspc_jax.parameters import CircuitParams
from dspc_jax.structure import families as structures
from dspc_jax.structure import region_graph

FORMAT = "dspc_jax circuit"
VERSION = 1

_TYPES = {
    cls.__name__: cls
    for cls in (
        CircuitConfig,
        structures.RandomBinaryTrees,
        structures.QuadTree,
        region_graph.RegionGraph,
        region_graph.Partition,
        leaves.Normal,
        leaves.UnitNormal,
        leaves.Binomial,
        leaves.Bernoulli,
        leaves.Categorical,
        leaves.DiscretizedLogistic,
    )
}


def config_to_json(config: Any) -> Any:
    """A configuration as plain JSON values (dataclasses carry their ``type``)."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        name = type(config).__name__
        if name not in _TYPES:
            raise ValueError(f"config must be made of {sorted(_TYPES)}, got {name}")
        fields = [f for f in dataclasses.fields(config) if f.init]
        values = {f.name: config_to_json(getattr(config, f.name)) for f in fields}
        return {"type": name, **values}
    if isinstance(config, tuple):
        return [config_to_json(item) for item in config]
    return config


def config_from_json(value: Any) -> Any:
    """Reverses `config_to_json`; only the library's own configurations can result."""
    if isinstance(value, dict):
        name = value.get("type")
        if name not in _TYPES:
            raise ValueError(
                f"config must have a type among {sorted(_TYPES)}, got {name!r}"
            )
        fields = {k: config_from_json(v) for k, v in value.items() if k != "type"}
        return _TYPES[name](**fields)
    if isinstance(value, list):
        return tuple(config_from_json(item) for item in value)
    return value


def save(
    path: str | os.PathLike[str], config: CircuitConfig, params: CircuitParams
) -> None:
    """Writes a circuit to one file; a crash leaves the old file or the new, never half.

    Args:
        path: the file, of this machine (``~`` is the home folder); an existing one is
            replaced.
        config: the circuit's configuration.
        params: its parameters.

    Raises:
        ValueError: the parameters are not those of this configuration, or the path is a
            remote one.
        OSError: the file cannot be written.
    """
    instance("config", config, CircuitConfig)
    parameters.check(build(config).layout, params)
    header = {"format": FORMAT, "version": VERSION, "config": config_to_json(config)}
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    path = _local(path)
    temporary = f"{path}.{uuid.uuid4().hex}.part"
    try:
        # Opened by name, so that its mode is what the umask says.
        with open(temporary, "xb") as file:
            np.savez(file, header=text, **_named(params))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def load(
    path: str | os.PathLike[str], config: CircuitConfig | None = None
) -> tuple[CircuitConfig, CircuitParams]:
    """Reads a circuit.

    Args:
        path: a file that `save` wrote.
        config: the configuration that the file must have, or None for any.

    Returns:
        The configuration and the parameters.

    Raises:
        ValueError: not such a file, a version that this library does not know, another
            configuration than ``config``, or parameters that do not fit the
            configuration; the message names the difference.
        OSError: the file cannot be read.
    """
    path = _local(path)
    if config is not None:
        instance("config", config, CircuitConfig)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        header = json.loads(arrays.pop("header").tobytes())
        kind, version = header["format"], header["version"]
    except (zipfile.BadZipFile, KeyError, EOFError, ValueError, TypeError) as error:
        raise ValueError(
            f"path must be a file of {FORMAT!r}, got {path} ({error})"
        ) from error
    if kind != FORMAT or version != VERSION:
        raise ValueError(
            f"path must be {FORMAT!r} of version {VERSION}, got {kind!r} of version "
            f"{version!r} in {path}"
        )
    stored_config = config_from_json(header["config"])
    if config is not None and stored_config != config:
        raise ValueError(
            f"path must hold the circuit of config, got another in {path}: "
            f"{_difference(config, stored_config)}"
        )
    shapes = parameters.shapes(build(stored_config).layout)
    expected = _named(shapes)
    if difference := expected.keys() ^ arrays.keys():
        raise ValueError(
            f"path must hold exactly the arrays {sorted(expected)}, got {path}, which "
            f"differs in {sorted(difference)}"
        )
    for name, shape in expected.items():
        array = arrays[name]
        if array.shape != shape.shape or array.dtype != shape.dtype:
            raise ValueError(
                f"path must hold {name} as {shape.dtype} {shape.shape}, got "
                f"{array.dtype} {array.shape} in {path}"
            )
    tree = jax.tree.structure(shapes)
    values = [jnp.asarray(arrays[name]) for name in expected]
    return stored_config, jax.tree.unflatten(tree, values)


def _local(path: str | os.PathLike[str]) -> str:
    """A path of this machine; ``~`` is the home folder. Refuses remote ones."""
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"path must be the path of a file, got {shown(path)}")
    text = os.path.expanduser(os.fspath(path))
    if "://" in text:
        raise ValueError(f"path must be one of this machine, got {shown(text)}")
    return text


def _named(params: Any) -> dict[str, Any]:
    """Leaves by path, such as ``.sums[0][1]``, in tree order."""
    return {
        f"params{jax.tree_util.keystr(path)}": leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }


def _difference(expected: CircuitConfig, stored: CircuitConfig) -> str:
    return "; ".join(
        f"{field.name} must be {getattr(expected, field.name)}, "
        f"got {getattr(stored, field.name)}"
        for field in dataclasses.fields(CircuitConfig)
        if getattr(expected, field.name) != getattr(stored, field.name)
    )
