"""A loss on samples, and what is trained against them: what a program supplies."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

import dspc_jax as pc
from dspc_jax.objectives import (
    SCORE_ESTIMATORS,
    Objective,
    repeat_update,
    with_score,
)
from experiments.models.generators import Sampler

Metrics = dict[str, jax.Array]


class Term(NamedTuple):
    """A loss on samples, and what is trained against the generator.

    Attributes:
        name: in the metrics, ``NAME_term``.
        loss: ``(params, key, x, adversary, sample) -> (loss, metrics)``; ``x`` are gray
            values ``[B, V, C]``, ``sample`` a `Sampler`.
        init: ``key -> adversary``, any pytree; ``()`` where there is none.
        train: ``(adversary, params, key, number, draw, sample) -> (adversary,
            metrics)``: the adversary's steps before the generator's step ``number``
            (from 0, traced), which has the parameters ``params``. ``draw(key)`` is a
            fresh batch of gray values ``[B, V, C]``. None where there is nothing to
            train.
        advantages: ``(x, samples, adversary) -> [S]``, what each sample adds to the
            loss: `dspc_jax.objectives.set_advantages` in closed form. None: by leaving
            out one sample after the other.
        draws: whether the loss asks for samples; else no relaxation matters to it.
        unit: of the loss, for people.
    """

    name: str
    loss: Callable[..., tuple[jax.Array, Metrics]]
    init: Callable[[jax.Array], Any] = lambda key: ()
    train: Callable[..., tuple[Any, Metrics]] | None = None
    advantages: Callable[[jax.Array, jax.Array, Any], jax.Array] | None = None
    draws: bool = True
    unit: str = "loss"


def objective(
    term: Term,
    adversary: Any,
    sample: Sampler,
    relaxation: str,
    circuit: pc.Circuit | None,
    units: Callable[[jax.Array], jax.Array] | None = None,
) -> Objective:
    """The loss of a term with the gradient that the flags ask for.

    Args:
        term: the loss.
        adversary: what it was trained against.
        sample: differentiable samples, for a relaxation that has any.
        relaxation: the flag; a score draws from the circuit itself.
        circuit: what is drawn from; None for a network.
        units: from values of the circuit's leaves to gray values.

    Returns:
        ``(params, key, x) -> (loss, metrics)`` of ``{"circuit": ..., **more}``.
    """

    def loss(params, key, x, *, sample):
        return term.loss(params, key, x, adversary, sample)

    if not term.draws or circuit is None or relaxation not in SCORE_ESTIMATORS:
        return lambda params, key, x: loss(params, key, x, sample=sample)
    of_term = term.advantages
    scored = with_score(
        loss,
        circuit,
        estimator=relaxation,
        advantages=of_term and (lambda x, samples: of_term(x, samples, adversary)),
        units=units,
        temperature=sample.temperature,
    )
    return lambda params, key, x: scored(params["circuit"], key, x)


def adversary_steps(
    loss: Objective,
    optimizer: optax.GradientTransformation,
    state: tuple[Any, optax.OptState],
    key: jax.Array,
    num_steps: jax.Array | int,
    draw: Callable[[jax.Array], jax.Array],
    project: Callable[[Any], Any] = lambda params: params,
) -> tuple[tuple[Any, optax.OptState], Metrics]:
    """Steps of what is trained against the generator, each on a batch of its own.

    Args:
        loss: ``(adversary's params, key, x) -> (loss, metrics)``.
        optimizer: of its parameters.
        state: its parameters and the optimizer's state.
        key: split anew for each step.
        num_steps: how many, may be traced.
        draw: ``key -> x``.
        project: ``params -> params``, after each step.

    Returns:
        The state, and the metrics of the last step, with ``grad_norm``.
    """

    def update(state, key):
        params, opt_state = state
        draw_key, loss_key = jax.random.split(key)
        grads, metrics = jax.grad(loss, has_aux=True)(params, loss_key, draw(draw_key))
        updates, opt_state = optimizer.update(grads, opt_state, params)
        metrics["grad_norm"] = optax.tree.norm(grads)
        return (project(optax.apply_updates(params, updates)), opt_state), metrics

    return repeat_update(update, state, key, num_steps)
