"""Circuits in files: what goes in comes out, and nothing else does."""

import dataclasses
import json
import os
import pathlib
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dspc_jax as pc
from dspc_jax import parameters, queries, registry, serialization
from dspc_jax.circuit import make_layout, product_graph
from dspc_jax.flows import ladder
from dspc_jax.leaves.normal import NormalParams
from dspc_jax.structure.folding import fold
from dspc_jax.structure.lifted_inputs import lift_inputs
from dspc_jax.structure.pairs import in_pairs
from dspc_jax.structure.sums_first import sums_first
from tests import cases

CIRCUIT = pc.build(
    pc.CircuitConfig(
        pc.RandomBinaryTrees(4, 2, 2), pc.Normal(), num_leaves=2, num_sums=2
    )
)


def file_of(tmp_path: pathlib.Path, config: Any = CIRCUIT.config) -> pathlib.Path:
    path = tmp_path / "circuit.npz"
    pc.save(path, config, cases.random_params(pc.build(config), seed=3))
    return path


def old_file(path: pathlib.Path, config: pc.CircuitConfig, version: int) -> Any:
    """Writes a file of versions 2 to 5: the circuit's layout then, and parameters."""
    graph = fold(product_graph(config))
    layout = dataclasses.replace(make_layout(config), graph=graph)
    params = parameters.init(layout, jax.random.key(0), None, 0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serialization, "VERSION", version)
        pc.save(path, config, params)
    return layout, params


def assert_equal(a: Any, b: Any) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for u, v in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert u.dtype == v.dtype
        np.testing.assert_array_equal(u, v)


@pytest.mark.parametrize("name", [*cases.DISCRETE, *cases.NORMAL])
def test_circuits_come_back_bit_for_bit(name, tmp_path):
    config = (cases.DISCRETE | cases.NORMAL)[name]
    path = file_of(tmp_path, config)
    stored, params = pc.load(path)
    assert stored == config
    assert_equal(params, cases.random_params(pc.build(config), seed=3))
    assert_equal(pc.load(path, config)[1], params)
    assert [entry.name for entry in tmp_path.iterdir()] == ["circuit.npz"]


@pytest.mark.parametrize(
    "flow",
    [
        ladder.identity_flow(2, 2),
        pytest.param(
            ladder.after_logit(
                ladder.patch_flow(2, 2, patch=2, num_filters=3), alpha=0.1
            ),
            marks=pytest.mark.slow,
        ),
        ladder.multi_scale_flow(2, 2, num_steps=1, num_filters=2),
    ],
    ids=lambda flow: flow.name,
)
def test_transformed_circuits_come_back(flow, tmp_path):
    pulled = pc.transform(CIRCUIT, flow)
    data = jax.random.uniform(jax.random.key(1), (5, 4, 1))
    params = pulled.init(jax.random.key(0), data)
    pc.save(tmp_path / "file", pulled.config, params)
    config, stored = pc.load(tmp_path / "file")
    assert config == pulled.config
    assert pc.build(config) is pulled
    assert_equal(stored, params)


@pytest.mark.parametrize(
    "structure",
    [
        pc.QuadTree(2, 2, arity=4),
        pc.QuadGraph(2, 2),
        pc.PoonDomingos(2, 2, 1),
        pc.PoonDomingos(1, 4, (2, 1)),
        pc.hidden_chow_liu_tree(np.eye(4)),
    ],
    ids=lambda structure: type(structure).__name__,
)
def test_structures_come_back(structure, tmp_path):
    config = pc.CircuitConfig(structure, pc.Bernoulli(), num_leaves=2, num_sums=2)
    stored, params = pc.load(file_of(tmp_path, config))
    assert stored == config
    assert_equal(params, cases.random_params(pc.build(config), seed=3))


def test_the_type_of_parameters_is_converted(tmp_path):
    params = cases.random_params(CIRCUIT, seed=3)
    short = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    pc.save(tmp_path / "short", CIRCUIT.config, short)
    assert_equal(pc.load(tmp_path / "short", dtype=jnp.bfloat16)[1], short)
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), short)
    assert_equal(pc.load(tmp_path / "short")[1], rounded)
    long = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    pc.save(tmp_path / "long", CIRCUIT.config, long)
    assert_equal(pc.load(tmp_path / "long")[1], params)
    with jax.enable_x64(True):
        assert_equal(pc.load(tmp_path / "long")[1], long)
        wide = pc.load(tmp_path / "short", dtype="float64")[1]
        assert {leaf.dtype.name for leaf in jax.tree.leaves(wide)} == {"float64"}
    for dtype, message in (("float16", "got float16"), ("float64", "without jax_en")):
        with pytest.raises(ValueError, match=f"dtype must be .*{message}"):
            pc.load(tmp_path / "short", dtype=dtype)


@pc.register
@dataclasses.dataclass(frozen=True)
class Fixed(pc.Normal):
    """A leaf of this test: a standard Normal distribution without parameters."""

    min_scale: float = 0.5

    exponential: ClassVar[bool] = True

    def init(self, key, shape):
        del key
        return NormalParams(jnp.zeros(shape), jnp.ones((*shape[:3], 1)))


@pc.register
@dataclasses.dataclass(frozen=True)
class Chain:
    """A structure of this test: one variable after the other."""

    num_variables: int

    def region_graph(self) -> pc.RegionGraph:
        builder = pc.RegionGraphBuilder(self.num_variables)
        region = 0
        for first in range(self.num_variables - 1):
            rest = builder.add_region(range(first + 1, self.num_variables))
            builder.add_partition(region, builder.add_region([first]), rest)
            region = rest
        return builder.build()


def test_leaves_and_structures_of_users(tmp_path):
    config = pc.CircuitConfig(Chain(3), (Fixed(), pc.Bernoulli(), Fixed(0.25)))
    stored, params = pc.load(file_of(tmp_path, config))
    assert stored == config
    assert_equal(params, cases.random_params(pc.build(config), seed=3))


def test_types_are_registered_once():
    with pytest.raises(ValueError, match="name must be one that no other .*'Fixed'"):
        pc.register(Chain, name="Fixed")
    with pytest.raises(ValueError, match="cls must be a frozen dataclass"):
        pc.register(NormalParams)
    assert pc.register(Chain) is Chain


def test_types_that_are_not_registered_are_refused(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Own(Chain):
        pass

    config = pc.CircuitConfig(Own(3), pc.Bernoulli())
    with pytest.raises(
        ValueError, match=r"registered types \(dspc_jax.register\).*Own"
    ):
        file_of(tmp_path, config)
    assert not list(tmp_path.iterdir())


def test_parameters_of_another_circuit_are_refused(tmp_path):
    other = pc.build(dataclasses.replace(CIRCUIT.config, num_sums=3))
    params = cases.random_params(other, seed=0)
    with pytest.raises(ValueError, match=r"params must have .* of shape"):
        pc.save(tmp_path / "file", CIRCUIT.config, params)
    wrong = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), params)
    with pytest.raises(ValueError, match=r"must be of a type among .* got float16"):
        pc.save(tmp_path / "file", other.config, wrong)
    pc.save(tmp_path / "file", other.config, params)
    with pytest.raises(ValueError, match="its config must be config, got Circ"):
        pc.load(tmp_path / "file", CIRCUIT.config)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = file_of(tmp_path)
    before = path.read_bytes()

    def full(*_, **__):
        raise OSError("no space")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="no space"):
        file_of(tmp_path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_files_are_the_users(tmp_path, monkeypatch):
    """The home folder, and the permissions of any new file."""
    monkeypatch.setenv("HOME", str(tmp_path))
    pc.save("~/x.npz", CIRCUIT.config, cases.random_params(CIRCUIT, seed=3))
    assert pc.load("~/x.npz")[0] == CIRCUIT.config
    (tmp_path / "plain").write_text("")
    modes = [(tmp_path / name).stat().st_mode for name in ("x.npz", "plain")]
    assert modes[0] == modes[1]


def test_files_are_plain_archives_of_numpy(tmp_path):
    """So other tools can read the parameters."""
    path = file_of(tmp_path)
    with np.load(path) as archive:
        values = {name: archive[name] for name in archive.files}
    assert json.loads(values.pop("header").tobytes())["format"] == serialization.FORMAT
    params = cases.random_params(CIRCUIT, seed=3)
    np.testing.assert_array_equal(values["params.classes"], params.classes)
    assert len(values) == len(jax.tree.leaves(params))
    assert os.path.getsize(path) < 10_000


@pytest.mark.parametrize(
    "flow", [None, ladder.identity_flow(1, 2)], ids=["plain", "transformed"]
)
def test_the_sum_layer_of_an_older_file_has_its_name_of_today(flow, tmp_path):
    """``cp`` was the layer that is ``cp_t`` since version 3."""
    config: Any = pc.CircuitConfig(pc.QuadTree(1, 2), pc.Normal(), sum_layer="cp_t")
    if flow is not None:
        config = pc.transform(pc.build(config), flow).config
    circuit = pc.build(config)
    params = circuit.init(jax.random.key(0), np.zeros((2, 2, 1)))
    path = tmp_path / "new.npz"
    pc.save(path, config, params)
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(arrays["header"].tobytes())
    text = json.dumps(header | {"version": 2}).replace('"cp_t"', '"cp"')
    arrays["header"] = np.frombuffer(text.encode(), np.uint8)
    np.savez(tmp_path / "old.npz", **arrays)
    stored, values = pc.load(tmp_path / "old.npz")
    assert stored == config
    jax.tree.map(np.testing.assert_array_equal, values, params)


@pytest.mark.parametrize(
    ("structure", "sum_layer", "num_partitions"),
    [
        (pc.hidden_chow_liu_tree(np.eye(4)), "cp_t", 7),
        (pc.QuadTree(2, 2, arity=4), "cp", 7),
        (pc.QuadTree(2, 2, arity=4), "tucker", None),
        (pc.QuadTree(3, 3), "cp_t", None),
    ],
)
def test_products_of_an_older_file_are_of_two(
    structure, sum_layer, num_partitions, tmp_path
):
    """Until version 3; None: today's are, too."""
    config = pc.CircuitConfig(
        *(structure, pc.Bernoulli()), num_leaves=2, num_sums=2, sum_layer=sum_layer
    )
    graph = structure.region_graph()
    if sum_layer == "cp":
        graph = sums_first(graph)
    old = dataclasses.replace(
        config,
        structure=lift_inputs(in_pairs(graph)),
        sum_layer="tucker" if sum_layer == "tucker" else "cp_t",
    )
    written = old_file(tmp_path / "circuit.npz", old, 3)
    with np.load(tmp_path / "circuit.npz") as file:
        arrays = dict(file)
    header = json.loads(arrays["header"].tobytes())
    header |= {"config": registry.to_json(config)}
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(tmp_path / "old.npz", **arrays)
    stored, params = pc.load(tmp_path / "old.npz")
    assert_equal(params, parameters.in_levels(pc.build(old).layout, written[1]))
    if num_partitions is None:
        assert stored == config
    else:
        assert stored == old
        assert len(stored.structure.region_graph().partitions) == num_partitions
        with pytest.raises(ValueError, match="its config must be config"):
            pc.load(tmp_path / "old.npz", config)


@pytest.mark.parametrize(
    "config",
    [
        pc.CircuitConfig(
            pc.hidden_chow_liu_tree(np.random.default_rng(0).integers(0, 2, (9, 24))),
            *(pc.Bernoulli(), 1, 2, 2),
            sum_layer="cp_t",
        ),
        pc.CircuitConfig(pc.QuadTree(3, 5), pc.Bernoulli(), 1, 3, 2, sum_layer="cp_t"),
        pc.CircuitConfig(pc.QuadGraph(3, 3), pc.Bernoulli(), 1, 2, 2, sum_layer="cp_t"),
    ],
    ids=["tree", "lifted", "graph"],
)
def test_an_older_file_has_a_table_for_each_number_of_children(config, tmp_path):
    """Until version 5; it is the same circuit with the tables that there are now."""
    layout, params = old_file(tmp_path / "old.npz", config, 5)
    circuit = pc.build(config)
    stored, loaded = pc.load(tmp_path / "old.npz")
    assert stored == config
    number = len(jax.tree.leaves(params.sums))
    assert len(jax.tree.leaves(loaded.sums)) < number
    num_variables = config.structure.num_variables
    x = np.random.default_rng(1).integers(0, 2, (4, num_variables, 1))
    np.testing.assert_allclose(
        jax.vmap(circuit.log_prob, (None, 0))(loaded, x),
        jax.vmap(lambda x: queries.log_prob(layout, params, x))(x),
        rtol=1e-5,
    )
