"""Training through samples beside the likelihood: one step for all such programs.

A program supplies a `Generator` and a `Term` (a loss on samples, with whatever is
trained against it); the rest is the same for all: pre-training by likelihood, a
likelihood term beside the loss, and how the two gradients are joined.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

import dspc_jax as pc
from experiments.console.errors import UserError
from experiments.engine import flags
from experiments.engine.flags import Settings
from experiments.engine.system import System, levels_and_labels
from experiments.losses import score_function
from experiments.models.generators import Generator, Sample


@dataclasses.dataclass(frozen=True)
class MixtureSettings:
    """The flags of every program that trains a circuit through samples."""

    pretrain_steps: int = flags.flag(
        500,
        "first steps, which maximise the likelihood instead, by --optimizer",
        flags.at_least(0),
    )
    ll_weight: float = flags.flag(
        0.1,
        "weight of the negative log-likelihood (nats a dimension) beside the loss on "
        "samples",
        flags.at_least(0),
    )
    sample_weight: float = flags.flag(
        1.0,
        "weight of the loss on samples; 0: likelihood alone, all else the same, the "
        "control of a study",
        flags.at_least(0),
    )
    sampler_learning_rate: float | None = flags.flag(
        0.003,
        "Adam's step size after pre-training, where the gradient passes samples",
        flags.above(0),
    )
    balance: str = flags.flag(
        "none",
        "how the gradients of samples and likelihood are added: as they are (none), "
        "or each divided by its norm first (norm)",
        flags.one_of("none", "norm"),
    )
    clip_norm: float | None = flags.flag(
        None,
        "greatest norm of a gradient: a longer one is shortened to it (default: none)",
        flags.above(0),
        kind=float,
    )


# Of networks, which have no likelihood; Adam's step size is --learning_rate alone.
NO_LIKELIHOOD = MixtureSettings(
    pretrain_steps=0, ll_weight=0.0, sampler_learning_rate=None
)


class Term(NamedTuple):
    """A loss on samples, and what is trained against the generator.

    Attributes:
        name: in the metrics, ``NAME_term``.
        init: ``key -> adversary``, any pytree; ``()`` where there is none.
        train: ``(adversary, key, number, draw, sample) -> (adversary, metrics)``: the
            adversary's steps before the generator's step ``number`` (from 0, traced).
            ``draw(key)`` is a fresh batch of grey values ``[B, V, C]``,
            ``sample(keys)`` one of samples. None where there is nothing to train.
        loss: ``(params, key, x, adversary, sample) -> (loss, metrics)``; ``x`` are grey
            values ``[B, V, C]``, ``sample`` a `Sample`.
        follow: ``(adversary, params, number) -> adversary``, before ``train``: what the
            adversary takes over from the generator itself. None where it sees samples
            only.
        advantages: ``(x, samples, adversary) -> [S]``, what each sample adds to the
            loss, for ``--relaxation=score_function``:
            `dspc_jax.objectives.set_advantages` in closed form. None: by leaving out
            one sample after the other.
    """

    name: str
    init: Callable[[jax.Array], Any]
    train: Callable[..., tuple[Any, dict[str, jax.Array]]] | None
    loss: Callable[..., tuple[jax.Array, dict[str, jax.Array]]]
    follow: Callable[[Any, Any, jax.Array], Any] | None = None
    advantages: Callable[[jax.Array, jax.Array, Any], jax.Array] | None = None


class State(NamedTuple):
    """Everything that is trained.

    Attributes:
        params: of the generator.
        opt_state: of its Adam.
        em_state: of EM during pre-training, or ``()``.
        adversary: what `Term.init` made.
    """

    params: Any
    opt_state: optax.OptState
    em_state: Any
    adversary: Any


def make_system(
    settings: Settings, mixture: MixtureSettings, generator: Generator, term: Term
) -> System:
    """Training through samples as the training loop sees it.

    Its step metrics are ``loss``, ``NAME_term`` and ``ll_term`` (the terms as they
    entered the loss, weights included; 0 where a term was not part of it), the norms of
    the gradients, the temperature, and what the term reports.

    Args:
        settings: the shared flags.
        mixture: how the likelihood takes part.
        generator: what is trained.
        term: by what.

    Returns:
        The system.

    Raises:
        UserError: a likelihood is asked for where there is none.
    """
    if generator.likelihood_loss is None and (
        mixture.pretrain_steps or mixture.ll_weight
    ):
        raise UserError("--ll_weight must be 0 for a generator without likelihood")
    if not (mixture.sample_weight or mixture.ll_weight):
        raise UserError("--ll_weight must be greater than 0 with --sample_weight=0")
    codec = generator.codec
    scored = None
    if settings.relaxation in score_function.NAMES:
        scored = generator.circuit
    sampler_rate = mixture.sampler_learning_rate or settings.learning_rate
    adam = optax.scale_by_adam()
    if mixture.clip_norm is not None:
        adam = optax.chain(optax.clip_by_global_norm(mixture.clip_norm), adam)
    pretrain_em = _em(settings, mixture, generator)

    def init(key):
        generator_key, term_key = jax.random.split(key)
        params = generator.init(generator_key)
        em_state = () if pretrain_em is None else pretrain_em.init(params["circuit"])
        return State(params, adam.init(params), em_state, term.init(term_key))

    def ll_loss(params, key, x, labels):
        assert generator.likelihood_loss is not None
        if labels is None:
            return generator.likelihood_loss(params, key, x)
        return generator.likelihood_loss(params, key, x, labels)

    def expected_counts(params, x):
        if generator.expected_counts is not None:
            return generator.expected_counts(params, x)
        assert generator.circuit is not None
        return pc.expected_counts(generator.circuit.circuit, params["circuit"], x)

    def apply_adam(state, grads, rate):
        updates, opt_state = adam.update(grads, state.opt_state, state.params)
        updates = jax.tree.map(lambda u: -rate * u, updates)
        if generator.paced is not None:
            updates = generator.paced(updates)
        return state._replace(
            params=optax.apply_updates(state.params, updates), opt_state=opt_state
        )

    def pretrain_step(state, keys, x, labels):
        if pretrain_em is not None:
            params = state.params
            loss = ll_loss(params, keys[0], x, labels)
            counts = expected_counts(params, x)
            updates, em_state = pretrain_em.update(
                cast(Any, counts), state.em_state, params["circuit"]
            )
            circuit = optax.apply_updates(params["circuit"], updates)
            state = state._replace(
                params=params | {"circuit": circuit}, em_state=em_state
            )
            return state, {"ll_term": loss}
        loss, grads = jax.value_and_grad(ll_loss)(state.params, keys[0], x, labels)
        state = apply_adam(state, grads, settings.learning_rate)
        return state, {"ll_term": loss, "ll_grad_norm": optax.tree.norm(grads)}

    def term_gradient(state, keys, x, step, draw):
        """The gradient of the loss on samples, after a step of the adversary."""
        metrics = {}
        adversary, number = state.adversary, step - mixture.pretrain_steps
        if term.follow is not None:
            adversary = term.follow(adversary, state.params, number)
        if term.train is not None:

            def draw_unit(key):
                draw_key, noise_key = jax.random.split(key)
                levels, _ = levels_and_labels(draw(draw_key))
                return codec.to_unit(codec.encode(noise_key, levels))

            def draw_samples(keys):
                return generator.sampler(state.params, step)(keys, state.params)

            adversary, metrics = term.train(
                adversary, keys[2], number, draw_unit, draw_samples
            )

        def term_loss(params):
            given = (params, keys[1], codec.to_unit(x), adversary)
            if scored is not None:
                return score_function.term_loss(
                    settings.relaxation,
                    scored,
                    term.loss,
                    term.advantages,
                    *given,
                    generator.temperature(params, step),
                )
            sample: Sample = generator.sampler(params, step)
            return term.loss(*given, sample)

        (loss, of_term), grads = jax.value_and_grad(term_loss, has_aux=True)(
            state.params
        )
        return state._replace(adversary=adversary), loss, grads, metrics | of_term

    def sample_step(state, keys, x, labels, step, draw):
        metrics, weighted = {}, []

        def add(name, weight, loss, grads):
            metrics[f"{name}_term"] = weight * loss
            metrics[f"{name}_grad_norm"] = weight * optax.tree.norm(grads)
            weighted.append((weight, grads))

        if mixture.sample_weight:
            state, loss, grads, metrics = term_gradient(state, keys, x, step, draw)
            add(term.name, mixture.sample_weight, loss, grads)
        if mixture.ll_weight:
            loss, grads = jax.value_and_grad(ll_loss)(state.params, keys[0], x, labels)
            add("ll", mixture.ll_weight, loss, grads)
        if mixture.balance == "norm":
            weighted = [(weight, _unit_norm(grads)) for weight, grads in weighted]
        grads = functools.reduce(
            lambda one, other: jax.tree.map(jnp.add, one, other),
            [jax.tree.map(lambda g, w=w: w * g, grads) for w, grads in weighted],
        )
        return apply_adam(state, grads, sampler_rate), metrics

    def step(state, key, batch, step, draw):
        noise_key, *keys = jax.random.split(key, 4)
        levels, labels = levels_and_labels(batch)
        x = codec.encode(noise_key, levels)
        new, metrics = _either(
            step < mixture.pretrain_steps if mixture.pretrain_steps else None,
            lambda: pretrain_step(state, keys, x, labels),
            lambda: sample_step(state, keys, x, labels, step, draw),
        )
        terms = [metrics.get(f"{name}_term", 0.0) for name in (term.name, "ll")]
        metrics["loss"] = jnp.asarray(terms[0] + terms[1])
        metrics["temperature"] = generator.temperature(state.params, step)
        return new, metrics

    def of_state(function):
        return function and (lambda state, *given: function(state.params, *given))

    return System(
        init=init,
        step=step,
        evaluate=lambda state, key, batch: generator.evaluate(state.params, key, batch),
        sample=lambda state, key, num: generator.pictures(state.params, key, num),
        labelled=generator.sample_class is not None,
        complete=of_state(generator.complete),
        sample_class=of_state(generator.sample_class),
    )


Outcome = tuple[State, dict[str, jax.Array]]


def _either(
    first: jax.Array | None, one: Callable[[], Outcome], other: Callable[[], Outcome]
) -> Outcome:
    """``one()`` where ``first`` holds, else ``other()``; metrics that lack are 0."""
    if first is None:
        return other()
    shapes = jax.eval_shape(one)[1] | jax.eval_shape(other)[1]

    def padded(branch):
        def run():
            state, metrics = branch()
            zeros = {k: jnp.zeros(v.shape, v.dtype) for k, v in shapes.items()}
            return state, zeros | metrics

        return run

    return jax.lax.cond(first, padded(one), padded(other))


def _unit_norm(grads: Any) -> Any:
    norm = optax.tree.norm(grads)
    return jax.tree.map(lambda g: g / jnp.maximum(norm, 1e-12), grads)


def _em(
    settings: Settings, mixture: MixtureSettings, generator: Generator
) -> optax.GradientTransformation | None:
    """EM for pre-training, where the flags ask for it."""
    if settings.optimizer != "em":
        return None
    if generator.circuit is None or not mixture.pretrain_steps:
        raise UserError(
            "--optimizer must be adam without --pretrain_steps of a circuit (EM sees "
            f"no samples), got {settings.optimizer!r}"
        )
    if generator.circuit.labelled:
        raise UserError("--optimizer must be adam with --labels=roots, got 'em'")
    try:
        return pc.em(generator.circuit.circuit, settings.em_step_size)
    except ValueError as error:
        raise UserError(
            f"--optimizer=em does not fit --leaf={settings.leaf}: {error}"
        ) from error
