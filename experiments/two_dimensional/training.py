"""Mixtures of Gaussians on two-dimensional sets, by every objective, seeds vmapped."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import dspc_jax as pc
from dspc_jax.objectives import SCORE_ESTIMATORS
from experiments.losses.term import Term, objective
from experiments.models.generators import Sampler
from experiments.two_dimensional.data import PointSet
from experiments.two_dimensional.settings import TrainingSettings
from experiments.two_dimensional.terms import make_mixture, make_term


class Outcome(NamedTuple):
    """What training left; all arrays lead with the seeds.

    Attributes:
        params: of the circuit.
        metrics: step metrics, means over the last tenth of the steps, ``[S]``.
        history: ``[S, steps]`` losses.
    """

    params: Any
    metrics: dict[str, jax.Array]
    history: jax.Array


class State(NamedTuple):
    """What one seed trains.

    Attributes:
        params: ``{"circuit": ...}``.
        opt_state: of their Adam.
        adversary: what `Term.init` made.
        average: of the parameters so far.
    """

    params: Any
    opt_state: Any
    adversary: Any
    average: Any


def make_circuit(points: PointSet) -> pc.Circuit:
    """A mixture of K diagonal Gaussians with the paper's bounds on the deviation."""
    return make_mixture(points.num_components)


def train(settings: TrainingSettings, name: str, points: PointSet) -> Outcome:
    """Trains all seeds by one objective.

    Args:
        settings: how.
        name: of the objective, one of `terms.OBJECTIVES`.
        points: on what.

    Returns:
        The outcome.
    """
    circuit, data = make_circuit(points), jnp.asarray(points.train)
    term = make_term(settings, name, circuit, data)
    last = settings.seed + settings.num_seeds
    seeds = jnp.arange(settings.seed, last, dtype=jnp.uint32)
    keys = jax.vmap(jax.random.key)(seeds)
    return jax.jit(jax.vmap(_trainer(settings, term, circuit, data)))(keys)


def _trainer(
    settings: TrainingSettings, term: Term, circuit: pc.Circuit, data: jax.Array
) -> Callable[[jax.Array], Outcome]:
    """``key -> Outcome`` of one seed."""
    against = term.train is not None
    num_keys = 3 if against else 2  # one is the adversary's
    rate = settings.adv_sampler_learning_rate if against else settings.learning_rate
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, settings.num_steps))
    sample = _sampler(settings, circuit)

    def draw(key):
        return data[jax.random.randint(key, (settings.batch_size,), 0, len(data))]

    def step(key, state, number):
        key = jax.random.fold_in(key, number)
        *adversary_key, batch_key, loss_key = jax.random.split(key, num_keys)
        params, adversary, metrics = state.params, state.adversary, {}
        if term.train is not None:
            adversary, metrics = term.train(
                adversary, params, *adversary_key, number, draw, sample
            )
        loss = objective(term, adversary, sample, settings.relaxation, circuit)
        (value, more), grads = jax.value_and_grad(loss, has_aux=True)(
            params, loss_key, draw(batch_key)
        )
        metrics |= more | {"loss": value, "grad_norm": optax.tree.norm(grads)}
        updates, opt_state = optimizer.update(grads, state.opt_state)
        params: Any = optax.apply_updates(params, updates)
        average = params
        if against:
            average = _averaged(settings.adv_average, state.average, params, number)
        return State(params, opt_state, adversary, average), metrics

    def run(key):
        init_key, *adversary_key, train_key = jax.random.split(key, num_keys)
        params = {"circuit": _init(settings, circuit, init_key, data)}
        adversary = term.init(*adversary_key) if against else ()
        state, metrics = jax.lax.scan(
            functools.partial(step, train_key),
            State(params, optimizer.init(params), adversary, params),
            jnp.arange(settings.num_steps),
        )
        last = max(settings.num_steps // 10, 1)
        means = {name: jnp.mean(v[-last:]) for name, v in metrics.items()}
        return Outcome(state.average["circuit"], means, metrics["loss"])

    return run


def _init(settings: TrainingSettings, circuit: pc.Circuit, key, data) -> Any:
    if settings.init == "data":
        return circuit.init(key, data, spread=settings.init_spread)
    params = circuit.init(key)
    (leaf,) = params.leaves
    noise = jax.random.normal(jax.random.fold_in(key, 1), leaf.mean.shape)
    leaf = leaf._replace(mean=-3 + 6 * jax.nn.sigmoid(noise))
    return params._replace(leaves=(leaf,))


def _sampler(settings: TrainingSettings, circuit: pc.Circuit) -> Sampler:
    def draw(key, params):
        if settings.relaxation in SCORE_ESTIMATORS:
            return circuit.sample(key, params["circuit"])
        return circuit.sample_differentiable(
            key,
            params["circuit"],
            relaxation=settings.relaxation,
            temperature=settings.temperature,
        )

    return Sampler(jax.vmap(draw, (0, None)), settings.temperature)


def _averaged(most: float, average: Any, params: Any, number: jax.Array) -> Any:
    """At first an average of all, so that the start is soon forgotten."""
    rate = jnp.minimum(most, number / (number + 10.0))
    return jax.tree.map(lambda a, p: rate * a + (1 - rate) * p, average, params)
