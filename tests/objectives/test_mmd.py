"""The estimators of the MMD, and the loss made of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dspc_jax.objectives import (
    gaussian_kernel,
    median_bandwidths,
    mmd2_biased,
    mmd2_unbiased,
    mmd_loss,
    rational_quadratic_kernel,
    safe_sqrt,
)
from tests import cases

BANDWIDTHS = (0.5, 1.0, 3.0)
KERNEL = gaussian_kernel(BANDWIDTHS)


def _points(seed, num_points, shift=0.0):
    return cases.normal(seed, num_points, 3, 1) + np.float32(shift)


def _double_loop(x, y, unbiased):
    """Gretton et al. 2012, equations 3 and 5, in float64, one pair at a time."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)

    def k(a, b):
        return sum(np.exp(-((a - b) ** 2).sum() / (2 * s**2)) for s in BANDWIDTHS)

    def within(points):
        n = len(points)
        pairs = [
            k(points[i], points[j])
            for i in range(n)
            for j in range(n)
            if not (unbiased and i == j)
        ]
        return sum(pairs) / (n * (n - 1) if unbiased else n * n)

    between = sum(k(a, b) for a in x for b in y) / (len(x) * len(y))
    return within(x) + within(y) - 2 * between


@pytest.mark.parametrize("unbiased", [True, False])
def test_estimators_against_the_double_loop(unbiased):
    x, y = _points(0, 9), _points(1, 13, shift=0.3)
    estimate = estimate_of(mmd2_unbiased if unbiased else mmd2_biased)
    expected = _double_loop(x, y, unbiased)
    np.testing.assert_allclose(estimate(x, y), expected, atol=1e-5)


@functools.cache
def estimate_of(estimator):
    return cases.jit(functools.partial(estimator, kernel=KERNEL))


@functools.cache
def estimates_of(estimator):
    return cases.jit(jax.vmap(functools.partial(estimator, kernel=KERNEL)))


def _expected_kernel(mean, variance, bandwidths):
    """E exp(-d^2 / 2 s^2), d ~ N(mean, variance) in one dimension; summed over s."""
    return sum(
        s / np.sqrt(s**2 + variance) * np.exp(-(mean**2) / (2 * (s**2 + variance)))
        for s in bandwidths
    )


@pytest.mark.parametrize(("mean", "scale"), [(0.0, 1.0), (0.7, 1.0), (0.0, 2.0)])
def test_the_unbiased_estimator_has_the_closed_form_of_gaussians_as_its_mean(
    mean, scale
):
    """N(0, 1) against N(mean, scale^2), batches of 8: 4000 estimates, 4 deviations."""
    exact = (
        _expected_kernel(0, 2, BANDWIDTHS)
        + _expected_kernel(0, 2 * scale**2, BANDWIDTHS)
        - 2 * _expected_kernel(mean, 1 + scale**2, BANDWIDTHS)
    )
    x = cases.normal(0, 4000, 8, 1)
    y = np.float32(mean + scale * cases.normal(1, 4000, 8, 1))
    unbiased = estimates_of(mmd2_unbiased)(x, y)
    error = np.std(unbiased) / np.sqrt(4000)
    assert abs(np.mean(unbiased) - exact) < 4 * error
    # The negative control: the biased estimator is seen to be biased at this size.
    biased = estimates_of(mmd2_biased)(x, y)
    assert np.mean(biased) - exact > 20 * error


def test_the_biased_estimator_is_never_negative():
    x = cases.normal(0, 300, 5, 4)
    y = np.concatenate([x[:100], x[100:200] + np.float32(1e-6), x[200:] + 1])
    estimates = estimates_of(mmd2_biased)(x, y)
    assert np.all(estimates >= 0)
    assert np.all(estimates[200:] > 0.1)


def test_small_distances_leave_a_correct_mmd():
    """Features of a clipped encoder: all distances 1000 times below the bandwidths."""
    x = np.float32(1e-3) * _points(0, 20)
    y = np.float32(1e-3) * _points(1, 20, shift=0.5)
    expected = _double_loop(x, y, False)
    assert expected < 1e-5  # the kernels themselves are 3 to within 1e-4
    np.testing.assert_allclose(estimate_of(mmd2_biased)(x, y), expected, rtol=1e-4)


def _root(x, y, estimator, kernel):
    return safe_sqrt(estimator(x, y, kernel))


@pytest.mark.parametrize("estimator", [mmd2_biased, mmd2_unbiased])
@pytest.mark.parametrize("kernel", [KERNEL, rational_quadratic_kernel()])
def test_gradients_are_finite_at_identical_samples(estimator, kernel):
    gradient = cases.jit(
        jax.grad(functools.partial(_root, estimator=estimator, kernel=kernel), 1)
    )
    x = _points(0, 6)
    for points in (x, np.zeros_like(x)):
        assert np.isfinite(gradient(points, points)).all()


def test_safe_sqrt():
    x = np.asarray([-1.0, 0.0, 1e-30, 4.0], np.float32)
    value, gradient = cases.jit(jax.vmap(jax.value_and_grad(safe_sqrt)))(x)
    np.testing.assert_allclose(value, [0, 0, 1e-15, 2], rtol=1e-6)
    np.testing.assert_allclose(gradient, [0, 0, 5e14, 0.25], rtol=1e-6)


def test_too_few_points_are_refused():
    with pytest.raises(ValueError, match="y must hold at least 2 points, got 1"):
        mmd2_unbiased(_points(0, 3), _points(1, 1), KERNEL)
    with pytest.raises(ValueError, match="x must hold at least 1 points, got 0"):
        mmd2_biased(_points(0, 0), _points(1, 1), KERNEL)


def _location_scale(keys, params):
    noise = jax.vmap(lambda key: jax.random.normal(key, (3, 1)))(keys)
    return params["location"][None] + jnp.exp(params["log_scale"])[None] * noise


_ZEROS = np.zeros((3, 1), np.float32)
_PARAMS = {"location": _ZEROS, "log_scale": _ZEROS}


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param(
            {"estimator": "biased", "square_root": True, "num_samples": 100},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_location_scale_sampler_learns_its_data(options):
    location = np.asarray([1.0, -2.0, 0.5], np.float32)[:, None]
    scale = np.asarray([0.5, 1.0, 2.0], np.float32)[:, None]
    data = jnp.asarray(location[None] + scale[None] * _points(5, 1000))
    kernel = gaussian_kernel(cases.jit(median_bandwidths)(data))
    loss = functools.partial(mmd_loss, sample=_location_scale, kernel=kernel, **options)
    optimizer = optax.rmsprop(0.02)

    @cases.jit
    def train(params, key):
        def step(carry, key):
            params, opt_state = carry
            batch_key, loss_key = jax.random.split(key)
            batch = data[jax.random.randint(batch_key, (64,), 0, len(data))]
            grads, metrics = jax.grad(loss, has_aux=True)(params, loss_key, batch)
            updates, opt_state = optimizer.update(grads, opt_state)
            return (optax.apply_updates(params, updates), opt_state), metrics["mmd2"]

        keys = jax.random.split(key, 300)
        return jax.lax.scan(step, (params, optimizer.init(params)), keys)

    (params, _), mmd2 = train(_PARAMS, jax.random.key(0))
    assert mmd2[-50:].mean() < 0.2 * mmd2[:5].mean()
    np.testing.assert_allclose(params["location"], location, atol=0.3)
    np.testing.assert_allclose(params["log_scale"], np.log(scale), atol=0.3)


def test_the_loss_reports_its_estimate_and_the_mean_kernel():
    batch = _points(0, 10)

    @cases.jit
    def all_of(key):
        samples = _location_scale(jax.random.split(jax.random.clone(key), 10), _PARAMS)
        loss = mmd_loss(_PARAMS, key, batch, sample=_location_scale, kernel=KERNEL)
        return loss, samples, mmd2_unbiased(batch, samples, KERNEL)

    (loss, metrics), samples, estimate = all_of(jax.random.key(1))
    assert set(metrics) == {"mmd2", "kernel_mean"}
    np.testing.assert_allclose(loss, estimate, rtol=1e-6)
    np.testing.assert_allclose(metrics["mmd2"], loss)
    d2 = np.square(np.asarray(batch)[:, None] - np.asarray(samples)[None]).sum((2, 3))
    expected = sum(np.exp(-d2 / (2 * s**2)).mean() for s in BANDWIDTHS)
    np.testing.assert_allclose(metrics["kernel_mean"], expected, rtol=1e-5)


def test_the_loss_on_features():
    @cases.jit
    def both(key, batch):
        arguments = _PARAMS, jax.random.clone(key), batch
        loss = functools.partial(mmd_loss, sample=_location_scale)
        plain, _ = loss(*arguments, kernel=gaussian_kernel(1.0))
        scaled, _ = loss(
            *(_PARAMS, key, batch),
            kernel=gaussian_kernel(3.0),
            features=lambda points: 3 * points,
        )
        return plain, scaled

    plain, scaled = both(jax.random.key(1), _points(0, 10))
    np.testing.assert_allclose(scaled, plain, rtol=1e-4, atol=1e-6)


def test_the_loss_over_seeds_is_the_loss_of_each_seed():
    loss = functools.partial(mmd_loss, sample=_location_scale, kernel=KERNEL)
    batch = _points(0, 10)
    params = jax.tree.map(lambda p: np.stack([p, p + 1]), _PARAMS)
    keys = cases.fresh_keys
    together, _ = cases.jit(jax.vmap(loss, (0, 0, None)))(params, keys(0, 2), batch)
    each = cases.jit(loss)
    for i in range(2):
        one, _ = each(jax.tree.map(lambda p, i=i: p[i], params), keys(0, 2)[i], batch)
        np.testing.assert_allclose(together[i], one, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimator": "linear"}, "estimator must be"),
        ({"square_root": True}, "square_root must go with estimator='biased'"),
        ({"num_samples": 0}, "num_samples must be at least 1, got 0"),
        ({"sample": lambda keys, _: jnp.zeros((len(keys), 4, 1))}, "shape of the data"),
    ],
)
def test_bad_options_are_refused(options, message):
    options = {"sample": _location_scale, "kernel": KERNEL} | options
    with pytest.raises(ValueError, match=message):
        mmd_loss(_PARAMS, jax.random.key(0), _points(0, 5), **options)
