"""Choices and their gradients against plain code."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dspc_jax.sampling import relaxation as rx
from tests import cases

P, K, J, N = 2, 3, 4, 300  # choices, left and right alternatives, examples
SOFT = "gumbel_softmax"
HARD = ("hard", "straight_through", "simple", "gumbel_rao", "reinmax")


def random_choice(seed=0):
    rng = np.random.default_rng(seed)
    weight = rng.dirichlet(np.ones(K * J), (P, N)).reshape(P, N, K, J)
    choice = rx.Choice(
        jnp.asarray(np.moveaxis(weight, 1, 3), jnp.float32),
        jnp.asarray(rng.normal(size=(P, K, N)), jnp.float32),
        jnp.asarray(rng.normal(size=(P, J, N)), jnp.float32),
    )
    return choice, jnp.asarray(rng.gumbel(size=(P, K, J, N)), jnp.float32)


def logits(choice):
    weight, left, right = (np.asarray(part) for part in choice)
    return np.log(weight) + left[:, :, None] + right[:, None]


@functools.partial(jax.jit, static_argnums=0)
def choose(relaxation, choice, gumbel, temperature):
    """`rx.choose` takes the exponential of the noise."""
    return rx.choose(relaxation, choice, jnp.exp(gumbel), temperature)


@functools.partial(jax.jit, static_argnums=0)
def choose_one(relaxation, logits, gumbel, temperature):
    return rx.choose_one(relaxation, logits, jnp.exp(gumbel), temperature)


def plain(choice, noise, temperature):
    """The soft choice as a softmax over flat pairs, differentiated by JAX."""
    weight, left, right = choice
    logits = jnp.log(weight) + left[:, :, None] + right[:, None]
    z = (logits + noise) / temperature
    y = jax.nn.softmax(z.reshape(P, K * J, N), axis=1).reshape(z.shape)
    return y.sum(axis=2), y.sum(axis=1)


def cotangents():
    rng = np.random.default_rng(5)
    return tuple(
        jnp.asarray(rng.normal(size=(P, size, N)), jnp.float32) for size in (K, J)
    )


@functools.partial(jax.jit, static_argnums=0)
def gradients(relaxation, choice, noise, temperature):
    """Of `choose`, or of `plain`: with respect to choice, noise and temperature."""
    if relaxation == "plain":
        function = plain
    else:
        function = functools.partial(choose, relaxation)
    return jax.vjp(function, choice, noise, temperature)[1](cotangents())


def assert_close(a, b, **tolerance):
    jax.tree.map(
        lambda u, v: np.testing.assert_allclose(u, v, **tolerance), tuple(a), tuple(b)
    )


CLOSE = {"rtol": 2e-4, "atol": 2e-5}


@pytest.mark.parametrize(
    "temperature",
    [0.1, 1.0, *(pytest.param(t, marks=pytest.mark.slow) for t in (0.5, 3.0))],
)
def test_gumbel_softmax(temperature):
    """Value and gradient, with respect to the temperature too."""
    choice, noise = random_choice()
    t = jnp.float32(temperature)
    exact = jax.jit(plain)(choice, noise, t)
    assert_close(choose(SOFT, choice, noise, t), exact, **CLOSE)
    result, exact = (gradients(how, choice, noise, t) for how in (SOFT, "plain"))
    assert_close(result[0], exact[0], rtol=1e-3, atol=1e-3 / temperature)
    np.testing.assert_allclose(result[2], exact[2], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("relaxation", HARD)
def test_hard_values_are_the_arg_max(relaxation):
    choice, noise = random_choice()
    one_hots = choose(relaxation, choice, noise, jnp.float32(0.5))
    left, right = (np.asarray(one_hot) for one_hot in one_hots)
    z = np.asarray(logits(choice) + noise).reshape(P, K * J, N)
    best = z.argmax(axis=1)
    np.testing.assert_array_equal(left.argmax(axis=1), best // J)
    np.testing.assert_array_equal(right.argmax(axis=1), best % J)
    for one_hot in (left, right):  # exactly
        assert set(np.unique(one_hot)) == {0.0, 1.0}
        np.testing.assert_array_equal(one_hot.sum(axis=1), 1)


def test_gradients_of_hard_choices():
    """Those of the soft choice, of the probabilities, and none."""
    choice, noise = random_choice()
    t = jnp.float32(0.7)

    def of(relaxation):
        by_choice, _, by_temperature = gradients(relaxation, choice, noise, t)
        return by_choice, by_temperature

    jax.tree.map(np.testing.assert_array_equal, of("straight_through"), of(SOFT))
    silence = np.zeros_like(noise)
    probabilities = gradients("plain", choice, silence, jnp.float32(1.0))
    assert_close(of("simple")[0], probabilities[0], rtol=1e-3, atol=1e-4)
    assert of("simple")[1] == 0
    assert all((np.asarray(g) == 0).all() for g in jax.tree.leaves(of("hard")))


def pulled_plain(probs, dy):
    """The pull of a softmax with values ``probs``: NumPy, ``[P, K * J, N]``."""
    return probs * (dy - (probs * dy).sum(axis=1, keepdims=True))


def flat_cotangent():
    left, right = (np.asarray(g, np.float64) for g in cotangents())
    return (left[:, :, None] + right[:, None]).reshape(P, K * J, N)


def flat_softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def flat_logits(choice):
    return np.asarray(logits(choice), np.float64).reshape(P, K * J, N)


def test_reinmax_is_algorithm_2_of_its_paper():
    """At the paper's temperature 1, whatever ours is."""
    choice, noise = random_choice()
    result = gradients("reinmax", choice, noise, jnp.float32(0.3))
    a = flat_logits(choice)
    score = a + np.asarray(noise).reshape(a.shape)
    drawn = score == score.max(axis=1, keepdims=True)
    middle = (drawn + flat_softmax(a)) / 2
    dy = flat_cotangent()
    exact = 2 * pulled_plain(middle, dy) - 0.5 * pulled_plain(flat_softmax(a), dy)
    exact = exact.reshape(P, K, J, N)
    np.testing.assert_allclose(result[0].left, exact.sum(axis=2), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(result[0].right, exact.sum(axis=1), rtol=1e-3, atol=1e-4)
    by_weight = exact / np.asarray(choice.weight)
    np.testing.assert_allclose(result[0].weight, by_weight, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("relaxation", ["simple", "reinmax"])
def test_temperature_is_nothing_to_some(relaxation):
    choice, noise = random_choice()
    cold, hot = (
        gradients(relaxation, choice, noise, jnp.float32(t))[0] for t in (0.1, 1.0)
    )
    jax.tree.map(np.testing.assert_array_equal, cold, hot)


@pytest.mark.parametrize("relaxation", ["reinmax", "simple"])
def test_reinmax_is_exact_for_quadratic_functions(relaxation):
    """Summed over all choices with their probabilities; ``simple`` is off by far."""
    rng = np.random.default_rng(4)
    a, matrix = rng.normal(size=K), rng.normal(size=(K, K))

    def quadratic(y):
        return y @ (matrix + matrix.T) @ y / 2 + matrix[0] @ y

    p = np.exp(a) / np.exp(a).sum()
    values = np.array([quadratic(row) for row in np.eye(K)])
    exact = p * (values - p @ values)

    def f(a, noise):
        y = choose_one(relaxation, a[None, :, None], noise[None, :, None], 1.0)
        return quadratic(y[0, :, 0])

    # Noise that leads to each choice for sure.
    noises = 30 * np.eye(K, dtype=np.float32)
    each = jax.jit(jax.vmap(jax.grad(f), (None, 0)))(np.float32(a), noises)
    mean = p @ np.asarray(each)
    error = np.linalg.norm(mean - exact) / np.linalg.norm(exact)
    assert error < 1e-5 if relaxation == "reinmax" else error > 0.05


def test_gumbel_rao_averages_the_straight_through_gradient():
    """Against NumPy's own noise, thrown away where it leads to another choice."""
    rng = np.random.default_rng(8)
    temperature, many = 0.7, 200_000
    p = np.array([0.5, 0.3, 0.2])
    dy = np.array([1.0, -2.0, 0.5])
    z = np.log(p)[:, None] + rng.gumbel(size=(3, many))
    soft = flat_softmax(z[None] / temperature)[0]
    pull = soft * (dy[:, None] - dy @ soft) / temperature
    a, down = (
        np.broadcast_to(np.float32(row)[None, :, None], (1, 3, 20_000))
        for row in (np.log(p), dy)
    )
    noise = np.float32(rng.gumbel(size=a.shape))

    def each(a):
        for relaxation in ("gumbel_rao", "straight_through"):
            out, back = jax.vjp(
                lambda a, r=relaxation: choose_one(r, a, noise, temperature), a
            )
            yield out, back(down)[0]

    (out, result), (_, plain) = jax.jit(lambda a: list(each(a)))(a)
    for k in range(3):
        kept = pull[:, z.argmax(axis=0) == k]
        ours = np.asarray(result[0])[:, np.asarray(out[0, k] == 1)]
        error = np.sqrt(kept.var(1) / kept.shape[1] + ours.var(1) / ours.shape[1])
        assert (np.abs(kept.mean(axis=1) - ours.mean(axis=1)) < 4 * error).all()
        # Ten independent noises, so a tenth of the variance given the choice.
        np.testing.assert_allclose(ours.var(axis=1) * 10, kept.var(axis=1), rtol=0.1)
    assert np.var(result) < 0.9 * np.var(plain)


def test_noise_gets_a_gradient_from_the_soft_choice_alone():
    choice, noise = random_choice()
    t = jnp.float32(0.5)

    def of(relaxation):
        return np.asarray(gradients(relaxation, choice, noise, t)[1])

    for relaxation in HARD:
        assert (of(relaxation) == 0).all()
    np.testing.assert_allclose(of(SOFT), of("plain"), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("relaxation", cases.parameters(rx.RELAXATIONS, ["gumbel_rao"]))
def test_gradients_have_gradients(relaxation):
    """Reverse over reverse, as in a penalty on gradients, against differences."""
    choice, noise = random_choice()

    @jax.jit  # gumbel_rao's own noise is made of the bits of this one
    @jax.value_and_grad
    def penalty(left):
        changed = choice._replace(left=left)
        return jnp.sum(gradients(relaxation, changed, noise, 0.8)[0].left ** 2)

    left = np.asarray(choice.left)
    direction = np.random.default_rng(6).normal(size=left.shape)
    slope = np.sum(penalty(left)[1] * direction)
    there, back = (
        penalty(np.float32(left + step * direction))[0] for step in (1e-3, -1e-3)
    )
    np.testing.assert_allclose(slope, (there - back) / 2e-3, rtol=0.02, atol=1e-6)
    assert (slope != 0) == (relaxation != "hard")


def test_cold_choices_are_hard():
    """Distribution 1 for one choice; ties within 1e-3 are the exceptions."""
    choice, noise = random_choice()
    cold = choose(SOFT, choice, noise, jnp.float32(1e-4))
    hard = choose("hard", choice, noise, jnp.float32(1e-4))
    for a, b in zip(cold, hard, strict=True):
        assert np.isclose(a, b, atol=1e-3).all(axis=1).mean() > 0.99


def test_choices_follow_their_probabilities():
    """Frequencies of the hard choice: within 5 deviations of a count."""
    rng = np.random.default_rng(3)
    count = 100_000
    p = rng.dirichlet(np.ones(K))
    noise = np.float32(rng.gumbel(size=(1, K, count)))
    a = np.broadcast_to(np.float32(np.log(p))[None, :, None], noise.shape)
    chosen = choose_one("hard", a, noise, jnp.float32(1.0))
    result = np.asarray(chosen).mean(axis=(0, 2))
    assert (np.abs(result - p) < 5 * np.sqrt(p * (1 - p) / count)).all()


@pytest.mark.parametrize("relaxation", rx.RELAXATIONS)
def test_the_impossible_is_never_chosen(relaxation):
    choice, noise = random_choice()
    weight, right = np.array(choice.weight), np.array(choice.right)
    weight[:, 0] = weight[0, 1, 2] = 0
    right[:, 3] = -np.inf
    choice = rx.Choice(jnp.asarray(weight), choice.left, jnp.asarray(right))
    arguments = relaxation, choice, noise, jnp.float32(0.5)
    left, right = (np.asarray(side) for side in choose(*arguments))
    assert (left[:, 0] == 0).all()
    assert (right[:, 3] == 0).all()
    np.testing.assert_allclose(left.sum(axis=1), 1, rtol=1e-5)
    by_choice, _, by_temperature = gradients(*arguments)
    result = jax.tree.leaves((by_choice, by_temperature))
    assert all(np.isfinite(g).all() for g in result)


@pytest.mark.parametrize("relaxation", rx.RELAXATIONS)
def test_nothing_possible(relaxation):
    """The first pair if it must be one, else nothing; the gradient is 0."""
    choice, noise = random_choice()
    choice = choice._replace(left=jnp.asarray(np.full((P, K, N), -np.inf, np.float32)))
    arguments = relaxation, choice, noise, jnp.float32(0.5)
    first = 0.0 if relaxation == SOFT else 1.0
    for side in choose(*arguments):
        assert (np.asarray(side)[:, 0] == first).all()
        assert (np.asarray(side)[:, 1:] == 0).all()
    by_choice, _, by_temperature = gradients(*arguments)
    result = jax.tree.leaves((by_choice, by_temperature))
    assert all((np.asarray(g) == 0).all() for g in result)


def test_choose_one_is_a_pair_with_one_side():
    choice, noise = random_choice()
    a, noise = np.log(np.asarray(choice.weight)[:, :, 0]), np.asarray(noise)[:, :, 0]
    result = choose_one(SOFT, a, noise, jnp.float32(0.5))
    exact = flat_softmax((a + noise) / 0.5)
    np.testing.assert_allclose(result, exact, rtol=1e-4, atol=1e-6)


def test_bad_input():
    with pytest.raises(ValueError, match="relaxation must be one of .*got 'soft'"):
        rx.check("soft")
