r"""The MMD on adversarially learned features: the MMD-GAN of Li et al. (2017).

An auto-encoder (`dspc_jax.interfaces.AutoEncoder`) defines the kernel
:math:`k(f(x), f(y))` of its features :math:`f`. The critic is trained to maximize the
MMD while f stays injective (it must reconstruct data and samples), the sampler to
minimize it:

.. math::
  \text{critic:}\; \max_{f, g}\; \sqrt{M} + \lambda_h h - \lambda_r (r(x) + r(y)),
  \qquad \text{sampler:}\; \min_\theta\; \sqrt{M} + \lambda_h h,

with the biased estimate :math:`M = \mathrm{MMD}^2(f(x), f(y))`, the rank hinge
:math:`h = -\operatorname{mean}_k \max(0, \bar f_k(y) - \bar f_k(x)) \le 0`, the mean
squared reconstruction error :math:`r`, :math:`\lambda_h = 16`, :math:`\lambda_r = 8`.
All parameters of the encoder are clipped to :math:`\pm 0.01` (`clip_encoder`) at
initialization and after each step of the critic, those of the decoder never. (The
source clips before each step, so its sampler meets an encoder that is not clipped.)

One sampler step, with pure functions throughout::

    def critic_update(state, key):
        critic_params, opt_state = state
        batch_key, loss_key = jax.random.split(key)
        batch = data[jax.random.randint(batch_key, (batch_size,), 0, len(data))]
        grads, metrics = jax.grad(critic_loss, has_aux=True)(
            critic_params, loss_key, batch, params=params, ...
        )
        updates, opt_state = optimizer.update(grads, opt_state)
        critic_params = clip_encoder(optax.apply_updates(critic_params, updates))
        return (critic_params, opt_state), metrics

    critic, metrics = repeat_update(critic_update, critic, key, critic_steps(step))

References:
    Li, Chang, Cheng, Yang and Poczos, "MMD GAN: Towards Deeper Understanding of Moment
    Matching Network", NeurIPS 2017, and its published code for constants and schedule.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from dspc_jax.interfaces import AutoEncoder
from dspc_jax.objectives.kernels import Kernel
from dspc_jax.objectives.mmd import mmd2_biased, safe_sqrt
from dspc_jax.ops.values import as_values
from dspc_jax.types import Array, Key, Metrics, PyTree

State = TypeVar("State")


def rank_hinge(x_features: Array, y_features: Array) -> Array:
    r"""The one-sided penalty of Li et al. (section 3.2, feasible set reduction).

    .. math:: h = -\frac1K \sum_k \max(0, \bar f_k(y) - \bar f_k(x))

    Args:
        x_features: ``[N, K]`` features of data.
        y_features: ``[M, K]`` features of samples.

    Returns:
        A scalar ``<= 0``; 0 where no mean feature of the samples exceeds the data's.
    """
    difference = jnp.mean(x_features, 0) - jnp.mean(y_features, 0)
    return -jnp.mean(jax.nn.relu(-difference))


def critic_loss(
    critic_params: PyTree,
    key: Key,
    batch: Array,
    *,
    params: PyTree,
    sample: Callable[[Array, Any], Array],
    auto_encoder: AutoEncoder,
    kernel: Kernel,
    hinge_weight: float = 16.0,
    reconstruction_weight: float = 8.0,
) -> tuple[Array, Metrics]:
    r"""The critic's loss :math:`-(\sqrt M + \lambda_h h - \lambda_r (r_x + r_y))`.

    Args:
        critic_params: parameters of the auto-encoder.
        key: one typed key; split into one key per sample.
        batch: ``[B, V, C]`` data in the leaves' own units.
        params: the sampler's parameters; no gradient reaches them.
        sample: ``sample(keys[B], params) -> [B, V, C]``; need not be differentiable.
        auto_encoder: the critic's functions.
        kernel: a `Kernel` on features; the source's is
            ``gaussian_kernel((1, 2, 4, 8, 16))``.
        hinge_weight: :math:`\lambda_h`.
        reconstruction_weight: :math:`\lambda_r`; the errors are means over all values,
            scaled to [-1, 1] by the auto-encoder.

    Returns:
        The loss, and the metrics ``mmd2``, ``hinge``, ``data_error``, ``sample_error``.
    """
    batch = as_values("batch", batch)
    samples = sample(jax.random.split(key, batch.shape[0]), params)
    samples = jax.lax.stop_gradient(samples)
    x_features = auto_encoder.encode(critic_params, batch)
    y_features = auto_encoder.encode(critic_params, samples)
    mmd2 = mmd2_biased(x_features, y_features, kernel)
    hinge = rank_hinge(x_features, y_features)

    def error(values: Array, features: Array) -> Array:
        decoded = auto_encoder.decode(critic_params, features)
        return jnp.mean((auto_encoder.scale(values) - decoded) ** 2)

    data_error, sample_error = error(batch, x_features), error(samples, y_features)
    gain = safe_sqrt(mmd2) + hinge_weight * hinge
    loss = reconstruction_weight * (data_error + sample_error) - gain
    return loss, {
        "mmd2": mmd2,
        "hinge": hinge,
        "data_error": data_error,
        "sample_error": sample_error,
    }


def sampler_loss(
    params: PyTree,
    key: Key,
    batch: Array,
    *,
    critic_params: PyTree,
    sample: Callable[[Array, Any], Array],
    auto_encoder: AutoEncoder,
    kernel: Kernel,
    hinge_weight: float = 16.0,
) -> tuple[Array, Metrics]:
    r"""The sampler's (the circuit's) loss :math:`\sqrt M + \lambda_h h`.

    Args:
        params: the sampler's parameters.
        key: one typed key; split into one key per sample.
        batch: ``[B, V, C]`` data in the leaves' own units.
        critic_params: parameters of the auto-encoder; differentiate ``params`` alone.
        sample: ``sample(keys[B], params) -> [B, V, C]``, differentiable.
        auto_encoder: the critic's functions.
        kernel: a `Kernel` on features.
        hinge_weight: :math:`\lambda_h`; 16 is the source's. The term has no lower
            bound: it rewards the sampler for mean features above those of the data,
            without end, and only the critic can stop it. A location family of unbounded
            values diverged from its data with 16, and converged to it with 0 (with 16
            in the critic).

    Returns:
        The loss, and the metrics ``mmd2`` and ``hinge``.
    """
    batch = as_values("batch", batch)
    samples = sample(jax.random.split(key, batch.shape[0]), params)
    x_features = auto_encoder.encode(critic_params, batch)
    y_features = auto_encoder.encode(critic_params, samples)
    mmd2 = mmd2_biased(x_features, y_features, kernel)
    hinge = rank_hinge(x_features, y_features)
    return safe_sqrt(mmd2) + hinge_weight * hinge, {"mmd2": mmd2, "hinge": hinge}


def clip_encoder(
    critic_params: dict[str, Any], *, bound: float = 0.01
) -> dict[str, Any]:
    """Clips every parameter of the encoder to ``[-bound, bound]``, none of the decoder.

    Args:
        critic_params: ``{"encoder": pytree, "decoder": pytree}``.
        bound: positive.

    Returns:
        The clipped parameters, in the same structure.

    Raises:
        ValueError: the bound is not positive, or there is no encoder.
    """
    if not bound > 0:
        raise ValueError(f"bound must be positive, got {bound}")
    if "encoder" not in critic_params:
        raise ValueError(
            f"critic_params must hold an 'encoder', got {sorted(critic_params)}"
        )
    encoder = jax.tree.map(
        lambda w: jnp.clip(w, -bound, bound), critic_params["encoder"]
    )
    return {**critic_params, "encoder": encoder}


def critic_steps(
    sampler_step: Array | int,
    *,
    initial_steps: int = 25,
    period: int = 500,
    busy_steps: int = 100,
    usual_steps: int = 5,
) -> Array:
    """The number of the critic's training steps before one step of the sampler.

    The defaults are those of the source.

    Args:
        sampler_step: index of the sampler's step, from 0; may be traced.
        initial_steps: number of first steps of the sampler that are busy.
        period: every multiple of this step is busy as well.
        busy_steps: the critic's steps before a busy step of the sampler.
        usual_steps: the critic's steps before any other.

    Returns:
        An int32 scalar.
    """
    step = jnp.asarray(sampler_step)
    busy = (step < initial_steps) | (step % period == 0)
    return jnp.where(busy, busy_steps, usual_steps).astype(jnp.int32)


def repeat_update(
    update: Callable[[State, Array], tuple[State, Metrics]],
    state: State,
    key: Key,
    num_updates: Array | int,
) -> tuple[State, Metrics]:
    """Applies an update a traced number of times: one compiled loop.

    Args:
        update: ``update(state, key) -> (state, metrics)``, a pure function.
        state: any pytree of arrays.
        key: one typed key; update i gets ``fold_in(key, i)``.
        num_updates: ``>= 0``, may be traced. Under ``vmap`` over seeds share it between
            all seeds; a mapped count runs the largest and discards the rest.

    Returns:
        The state, and the metrics of the last update; zeros if there was none.
    """
    shapes = jax.eval_shape(update, state, key)[1]
    metrics = jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), shapes)

    def body(i: Array, carry: tuple[State, Any]) -> tuple[State, Any]:
        return update(carry[0], jax.random.fold_in(key, i))

    return jax.lax.fori_loop(0, num_updates, body, (state, metrics))
