"""Mixtures of Gaussians on two-dimensional sets, by every objective, seeds vmapped."""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import dspc_jax as pc
from dspc_jax.networks import mlp_discriminator
from dspc_jax.networks.discriminators import Discriminator
from dspc_jax.objectives import (
    ADVERSARIAL_LOSSES,
    class_discriminator,
    discriminator_loss,
    exact_mmd_loss,
    gaussian_kernel,
    generator_loss,
    generator_risk,
    mean_advantages,
    mmd_advantages,
    mmd_loss,
    negative_log_likelihood,
    repeat_update,
    score_surrogate,
)
from experiments.engine import flags
from experiments.two_dimensional.data import PointSet

OBJECTIVES = ("ll", "mmd", "exact_mmd", "adv")
_MIN_SCALE, _MAX_SCALE = 0.05, 0.5  # the paper's bounds


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """How one model is trained; the same for all sets."""

    seed: int = flags.flag(0, "the first seed", flags.at_least(0))
    num_seeds: int = flags.flag(
        5, "seeds, trained together as one program", flags.at_least(1)
    )
    num_steps: int = flags.flag(1500, "training steps", flags.at_least(1))
    batch_size: int = flags.flag(512, "points a step", flags.at_least(2))
    learning_rate: float = flags.flag(
        0.05, "first step size of Adam (falls to 0 by a cosine)", flags.above(0)
    )
    init: str = flags.flag(
        "data",
        "first means: at data points, or random in [-3, 3] as the paper's",
        flags.one_of("data", "random"),
    )
    init_spread: float = flags.flag(
        0.2,
        "first deviations, relative to the data's; with --init=data",
        flags.above(0),
    )
    relaxation: str = flags.flag(
        "score_pathwise",
        "gradient through samples, for mmd and adv",
        flags.one_of(
            *(
                "score_pathwise",
                "implicit",
                "simple",
                "straight_through",
                "gumbel_softmax",
            ),
            *("gumbel_rao", "reinmax"),
        ),
    )
    temperature: float = flags.flag(1.0, "of the relaxation", flags.above(0))
    bandwidths: str = flags.flag(
        "0.05,0.1,0.2,0.5,1", "of the Gaussian kernels, with commas"
    )
    kernel_slope: float = flags.flag(
        1.0,
        "a kernel of bandwidth h has the weight h**-slope; 0 for equal weights",
        flags.at_least(0),
    )
    mmd_power: int = flags.flag(
        2,
        "minimise the unbiased squared MMD (2), or the root of the biased one (1)",
        flags.one_of(1, 2),
    )
    adv_loss: str = flags.flag(
        "vanilla", "adversarial loss", flags.one_of(*ADVERSARIAL_LOSSES)
    )
    adv_discriminator: str = flags.flag(
        "circuit",
        "a circuit with two roots over shared Gaussians (circuit), or a network (mlp)",
        flags.one_of("circuit", "mlp"),
    )
    adv_leaves: int = flags.flag(
        100, "Gaussians of the discriminating circuit", flags.at_least(1)
    )
    adv_hidden: str = flags.flag(
        "128,128", "hidden units of the discriminating network, with commas"
    )
    adv_sampler_learning_rate: float = flags.flag(
        0.02, "first step size of the circuit's Adam against it", flags.above(0)
    )
    adv_steps: int = flags.flag(
        3, "discriminator steps before each step of the circuit", flags.at_least(1)
    )
    adv_learning_rate: float = flags.flag(
        0.02,
        "first step size of the discriminator's Adam (falls to 0 by a cosine)",
        flags.above(0),
    )
    adv_r1_weight: float = flags.flag(
        0.01, "weight of the R1 penalty", flags.at_least(0)
    )
    adv_average: float = flags.flag(
        0.998,
        "adv: the result is an average of the parameters that forgets at this rate a "
        "step; 0 for the last parameters",
        flags.at_least(0),
    )


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


def numbers(text: str, kind: Callable[[str], Any] = float) -> tuple[Any, ...]:
    """``"1,2"`` as ``(1, 2)``."""
    return tuple(kind(word) for word in text.split(","))


def make_circuit(points: PointSet) -> pc.Circuit:
    """A mixture of K diagonal Gaussians with the paper's bounds on the deviation."""
    return pc.build(
        pc.CircuitConfig(
            pc.RandomBinaryTrees(num_variables=2, depth=0),
            pc.Normal(min_scale=_MIN_SCALE, max_scale=_MAX_SCALE),
            num_leaves=points.num_components,
        )
    )


def train(settings: TrainingSettings, objective: str, points: PointSet) -> Outcome:
    """Trains all seeds by one objective.

    Args:
        settings: how.
        objective: one of `OBJECTIVES`.
        points: on what.

    Returns:
        The outcome.
    """
    circuit = make_circuit(points)
    data = jnp.asarray(points.train)
    keys = jax.vmap(jax.random.key)(
        jnp.arange(settings.seed, settings.seed + settings.num_seeds, dtype=jnp.uint32)
    )
    one = (_adversarial if objective == "adv" else _direct)(
        settings, objective, circuit, data
    )
    return jax.jit(jax.vmap(one))(keys)


def _init(settings: TrainingSettings, circuit: pc.Circuit, key, data) -> Any:
    if settings.init == "data":
        return circuit.init(key, data, settings.init_spread)
    params = circuit.init(key)
    (leaf,) = params.leaves
    noise = jax.random.normal(jax.random.fold_in(key, 1), leaf.mean.shape)
    leaf = leaf._replace(mean=-3 + 6 * jax.nn.sigmoid(noise))
    return params._replace(leaves=(leaf,))


def _sampler(settings: TrainingSettings, circuit: pc.Circuit):
    """``(keys, params) -> [B, 2, 1]``."""
    if settings.relaxation == "score_pathwise":
        return jax.vmap(circuit.sample, (0, None))
    return jax.vmap(
        lambda key, params: circuit.sample_differentiable(
            key,
            params,
            relaxation=settings.relaxation,
            temperature=settings.temperature,
        ),
        (0, None),
    )


def _objective(settings: TrainingSettings, name: str, circuit: pc.Circuit):
    """``(params, key, batch) -> (loss, metrics)``."""
    bandwidths = numbers(settings.bandwidths)
    weights = [h**-settings.kernel_slope for h in bandwidths]
    if name == "ll":
        return lambda params, key, batch: negative_log_likelihood(
            params, key, batch, log_prob=circuit.log_prob
        )
    if name == "exact_mmd":
        return lambda params, key, batch: exact_mmd_loss(
            params, key, batch, circuit=circuit, bandwidths=bandwidths, weights=weights
        )
    root = settings.mmd_power == 1
    kernel = gaussian_kernel(bandwidths, weights)

    def sampled_mmd(params, key, batch):
        drawn: list[jax.Array] = []

        def sample(keys, params):
            drawn.append(_sampler(settings, circuit)(keys, params))
            return drawn[0]

        loss, metrics = mmd_loss(
            params,
            key,
            batch,
            sample=sample,
            kernel=kernel,
            estimator="biased" if root else "unbiased",
            square_root=root,
        )
        if settings.relaxation == "score_pathwise":
            advantages = mmd_advantages(batch, drawn[0], kernel)
            loss += _score(circuit, params, drawn[0], advantages)
        return loss, metrics

    return sampled_mmd


def _score(circuit: pc.Circuit, params: Any, samples: jax.Array, advantages: jax.Array):
    """0, with the gradient to the weights that the samples do not carry."""
    weights = params._replace(leaves=jax.lax.stop_gradient(params.leaves))
    log_probs = jax.vmap(circuit.log_prob, (None, 0))(
        weights, jax.lax.stop_gradient(samples)
    )
    return score_surrogate(log_probs, advantages)


def _adam(rate: float, num_steps: int, b1: float = 0.9) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(rate, num_steps), b1=b1)


def _batch(settings: TrainingSettings, key, data):
    return data[jax.random.randint(key, (settings.batch_size,), 0, len(data))]


def _last_tenth(metrics: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {k: jnp.mean(v[-max(len(v) // 10, 1) :]) for k, v in metrics.items()}


def _direct(settings, name, circuit, data):
    """One seed, where nothing is trained against the circuit."""
    objective = _objective(settings, name, circuit)
    optimizer = _adam(settings.learning_rate, settings.num_steps)

    def step(state, number, train_key):
        params, opt_state = state
        batch_key, loss_key = jax.random.split(jax.random.fold_in(train_key, number))
        (loss, metrics), grads = jax.value_and_grad(objective, has_aux=True)(
            params, loss_key, _batch(settings, batch_key, data)
        )
        metrics = {**metrics, "loss": loss, "grad_norm": optax.tree.norm(grads)}
        updates, opt_state = optimizer.update(grads, opt_state)
        return (optax.apply_updates(params, updates), opt_state), metrics

    def run(key):
        init_key, train_key = jax.random.split(key)
        params = _init(settings, circuit, init_key, data)
        (params, _), metrics = jax.lax.scan(
            lambda state, number: step(state, number, train_key),
            (params, optimizer.init(params)),
            jnp.arange(settings.num_steps),
        )
        return Outcome(params, _last_tenth(metrics), metrics["loss"])

    return run


def _adversarial(settings, name, circuit, data):
    """One seed against its discriminator."""
    del name
    sample = _sampler(settings, circuit)
    optimizer = _adam(settings.adv_sampler_learning_rate, settings.num_steps)
    discriminator = _discriminator(settings, data)
    critic_optimizer = _adam(
        settings.adv_learning_rate, settings.adv_steps * settings.num_steps, b1=0.5
    )

    def critic_step(params):
        def step(state, key):
            critic, opt_state = state
            batch_key, loss_key = jax.random.split(key)
            grads, metrics = jax.grad(discriminator_loss, has_aux=True)(
                critic,
                loss_key,
                _batch(settings, batch_key, data),
                params=params,
                sample=sample,
                discriminator=discriminator,
                loss=settings.adv_loss,
                r1_weight=settings.adv_r1_weight,
            )
            updates, opt_state = critic_optimizer.update(grads, opt_state)
            return (optax.apply_updates(critic, updates), opt_state), metrics

        return step

    def objective(params, key, batch, critic):
        drawn: list[jax.Array] = []

        def drawing(keys, params):
            drawn.append(sample(keys, params))
            return drawn[0]

        loss, metrics = generator_loss(
            params,
            key,
            batch,
            discriminator_params=critic,
            sample=drawing,
            discriminator=discriminator,
            loss=settings.adv_loss,
        )
        if settings.relaxation == "score_pathwise":
            logits = discriminator.logits(critic, jax.lax.stop_gradient(drawn[0]))
            losses = jax.vmap(lambda d: generator_risk(d[None], settings.adv_loss))
            loss += _score(circuit, params, drawn[0], mean_advantages(losses(logits)))
        return loss, metrics

    def step(state, number, train_key):
        params, opt_state, critic, average = state
        critic_key, batch_key, loss_key = jax.random.split(
            jax.random.fold_in(train_key, number), 3
        )
        critic, of_critic = repeat_update(
            critic_step(params), critic, critic_key, settings.adv_steps
        )
        (loss, metrics), grads = jax.value_and_grad(objective, has_aux=True)(
            params, loss_key, _batch(settings, batch_key, data), critic[0]
        )
        metrics = {**metrics, "loss": loss, "grad_norm": optax.tree.norm(grads)}
        metrics |= {f"discriminator_{k}": v for k, v in of_critic.items()}
        updates, opt_state = optimizer.update(grads, opt_state)
        params = optax.apply_updates(params, updates)
        # At first an average of all, so that the start is soon forgotten.
        rate = jnp.minimum(settings.adv_average, number / (number + 10.0))
        average = jax.tree.map(lambda a, p: rate * a + (1 - rate) * p, average, params)
        return (params, opt_state, critic, average), metrics

    def run(key):
        init_key, critic_key, train_key = jax.random.split(key, 3)
        params = _init(settings, circuit, init_key, data)
        critic = discriminator.init(critic_key)
        state = (
            params,
            optimizer.init(params),
            (critic, critic_optimizer.init(critic)),
            params,
        )
        (*_, average), metrics = jax.lax.scan(
            lambda state, number: step(state, number, train_key),
            state,
            jnp.arange(settings.num_steps),
        )
        return Outcome(average, _last_tenth(metrics), metrics["loss"])

    return run


def _discriminator(settings: TrainingSettings, data: jax.Array) -> Discriminator:
    if settings.adv_discriminator == "circuit":
        judge = pc.build(
            pc.CircuitConfig(
                pc.RandomBinaryTrees(num_variables=2, depth=0),
                pc.Normal(min_scale=_MIN_SCALE, max_scale=_MAX_SCALE),
                num_leaves=settings.adv_leaves,
                num_classes=2,
            )
        )
        return class_discriminator(
            judge.class_log_probs, lambda key: judge.init(key, data)
        )
    # Scaled to the data, so that one network does for all sets.
    low, high = (float(v) for v in np.quantile(np.asarray(data), (0.005, 0.995)))
    return mlp_discriminator(
        2,
        value_range=(low, high),
        hidden_sizes=numbers(settings.adv_hidden, int),
        dropout_rate=0.0,
    )
