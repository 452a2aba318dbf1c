"""The tasks of the benchmark: a query of a circuit, compiled, with its arguments."""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import dspc_jax as pc

RELAXATIONS = ("gumbel_softmax", "straight_through", "simple", "dense")
DIFFERENTIABLE = {f"differentiable[{name}]": name for name in RELAXATIONS}
TASKS = (
    "log_prob",
    "train",
    "em",
    *DIFFERENTIABLE,
    "sample",
    "conditional",
    "mpe",
)
_TOTAL_COUNT = 255  # pixels are counts of Binomial(255), as in the paper
LEAVES = {
    "binomial": pc.Binomial(_TOTAL_COUNT),
    "categorical": pc.Categorical(_TOTAL_COUNT + 1),
    "logistic": pc.DiscretizedLogistic(_TOTAL_COUNT + 1),
    "normal": pc.UnitNormal(),  # of gray values in [0, 1]
}


def _quad_tree(cell: "Cell") -> Any:
    return pc.QuadTree(height=cell.height, width=cell.width)


def _random_binary_trees(cell: "Cell") -> Any:
    return pc.RandomBinaryTrees(
        num_variables=cell.height * cell.width,
        depth=cell.depth,
        num_repetitions=cell.num_repetitions,
        seed=0,
    )


def _quad_graph(cell: "Cell") -> Any:
    return pc.QuadGraph(height=cell.height, width=cell.width)


def _hidden_chow_liu(cell: "Cell") -> Any:
    """Of noise that has been smoothed along rows and columns, as images are."""
    noise = np.random.default_rng(0).normal(size=(1000, cell.height, cell.width))
    for axis in (1, 2):
        noise = noise + np.roll(noise, 1, axis) + np.roll(noise, 2, axis)
    return pc.hidden_chow_liu_tree(noise.reshape(len(noise), -1))


STRUCTURES: dict[str, Callable[["Cell"], Any]] = {
    "random_binary_trees": _random_binary_trees,
    "quad_tree": _quad_tree,
    "quad_graph": _quad_graph,
    "hidden_chow_liu": _hidden_chow_liu,
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """A measurement to make; the defaults are the paper's setting.

    Attributes:
        task: one of `TASKS`.
        channels: of the image, C.
        height: of the image in pixels.
        width: of the image in pixels.
        batch: examples in one call, B.
        structure: one of `STRUCTURES`.
        depth: of the random binary trees, D.
        num_repetitions: random binary trees, R.
        num_units: sums and leaves of a region, K.
        sum_layer: as in `dspc_jax.CircuitConfig`.
        leaf: one of `LEAVES`.
        seconds: the least time of measuring.
    """

    task: str
    channels: int = 1
    height: int = 28
    width: int = 28
    batch: int = 64
    structure: str = "random_binary_trees"
    depth: int = 4
    num_repetitions: int = 10
    num_units: int = 20
    sum_layer: str = "tucker"
    leaf: str = "binomial"
    seconds: float = 3.0

    @property
    def shape(self) -> str:
        """The size of the image as it is written in tables."""
        return f"{self.channels}x{self.height}x{self.width}"

    def config(self) -> pc.CircuitConfig:
        """The circuit of this cell."""
        return pc.CircuitConfig(
            structure=STRUCTURES[self.structure](self),
            leaf=LEAVES[self.leaf],
            num_channels=self.channels,
            num_leaves=self.num_units,
            num_sums=self.num_units,
            num_classes=1,
            sum_layer=self.sum_layer,
        )


class Task(NamedTuple):
    """A compiled function and the arguments of its calls.

    Attributes:
        function: jitted, ``function(state, key, data) -> (state, result)``; it donates
            the state. Data are arguments, so that XLA folds nothing into a constant.
        state: the argument that one call hands to the next.
        data: the argument that is the same in every call.
    """

    function: Any
    state: Any
    data: Any


def make_task(cell: Cell, circuit: pc.Circuit, params: Any) -> Task:
    """Builds the task of a cell.

    Raises:
        ValueError: the task is not one of `TASKS`.
    """
    rng = np.random.default_rng(0)
    shape = (cell.batch, cell.height * cell.width, cell.channels)
    top = LEAVES[cell.leaf].support[1]
    top = _TOTAL_COUNT if np.isfinite(top) else 1.0
    levels = rng.integers(0, _TOTAL_COUNT + 1, shape)
    x = jnp.asarray(levels * (top / _TOTAL_COUNT), jnp.float32)
    columns = np.tile(np.arange(cell.width), cell.height)
    left_half = jnp.asarray(columns < cell.width // 2)  # [V]
    if cell.task == "log_prob":
        return _log_prob(circuit, params, x)
    if cell.task == "train":
        return _train(circuit, params, x)
    if cell.task == "em":
        return _em(circuit, params, x)
    if cell.task in DIFFERENTIABLE:
        target = jnp.asarray(rng.random(shape), jnp.float32)
        relaxation = DIFFERENTIABLE[cell.task]
        return _differentiable(circuit, params, target, relaxation, top)
    if cell.task == "sample":
        return _sample(circuit, params, cell.batch)
    if cell.task == "conditional":
        return _conditional(circuit, params, x, left_half)
    if cell.task == "mpe":
        return _mpe(circuit, params, x, left_half)
    raise ValueError(f"task must be one of {', '.join(TASKS)}, got {cell.task!r}")


def _log_prob(circuit: pc.Circuit, params: Any, x: jax.Array) -> Task:
    def call(params, key, x):
        del key
        return params, jax.vmap(circuit.log_prob, (None, 0))(params, x)

    return Task(_jit(call), params, x)


def _train(circuit: pc.Circuit, params: Any, x: jax.Array) -> Task:
    optimizer = optax.adam(1e-3)

    def mean_loss(params, x):
        return -jnp.mean(jax.vmap(circuit.log_prob, (None, 0))(params, x))

    def call(state, key, x):
        del key
        params, opt_state = state
        loss, gradient = jax.value_and_grad(mean_loss)(params, x)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    return Task(_jit(call), (params, optimizer.init(params)), x)


def _em(circuit: pc.Circuit, params: Any, x: jax.Array) -> Task:
    optimizer = pc.em(circuit, step_size=0.1)

    def call(state, key, x):
        del key
        params, em_state = state
        counts: Any = pc.expected_counts(circuit, params, x)
        updates, em_state = optimizer.update(counts, em_state, params)
        params = optax.apply_updates(params, updates)
        return (params, em_state), jnp.zeros(())

    return Task(_jit(call), (params, optimizer.init(params)), x)


def _differentiable(
    circuit: pc.Circuit, params: Any, target: jax.Array, relaxation: str, top: float
) -> Task:
    def squared_error(params, key, temperature, target):
        def draw(key):
            return circuit.sample_differentiable(
                key, params, relaxation=relaxation, temperature=temperature
            )

        samples = jax.vmap(draw)(jax.random.split(key, target.shape[0]))
        return jnp.mean((samples / top - target) ** 2)

    def call(params, key, data):
        return params, jax.value_and_grad(squared_error)(params, key, *data)

    return Task(_jit(call), params, (jnp.float32(1.0), target))


def _sample(circuit: pc.Circuit, params: Any, batch: int) -> Task:
    def call(params, key, data):
        del data
        keys = jax.random.split(key, batch)
        return params, jax.vmap(circuit.sample, (0, None))(keys, params)

    return Task(_jit(call), params, ())


def _conditional(
    circuit: pc.Circuit, params: Any, x: jax.Array, observed: jax.Array
) -> Task:
    def call(params, key, data):
        x, observed = data

        def fill(key, x):
            return circuit.sample(key, params, x=x, observed=observed)

        return params, jax.vmap(fill)(jax.random.split(key, x.shape[0]), x)

    return Task(_jit(call), params, (x, observed))


def _mpe(circuit: pc.Circuit, params: Any, x: jax.Array, observed: jax.Array) -> Task:
    def call(params, key, data):
        del key
        x, observed = data
        return params, jax.vmap(lambda x: circuit.mpe(params, x=x, observed=observed))(
            x
        )

    return Task(_jit(call), params, (x, observed))


def _jit(call: Callable[..., Any]) -> Any:
    return jax.jit(call, donate_argnums=0)
