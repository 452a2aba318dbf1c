"""Choices and their gradients against plain code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dspc_jax.sampling import relaxation as rx

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
    weight, left, right = choice
    return jnp.log(weight) + left[:, :, None] + right[:, None]


def choose(relaxation, choice, gumbel, temperature):
    """`rx.choose` takes the exponential of the noise."""
    return rx.choose(relaxation, choice, jnp.exp(gumbel), temperature)


def choose_one(relaxation, logits, gumbel, temperature):
    return rx.choose_one(relaxation, logits, jnp.exp(gumbel), temperature)


def plain(choice, noise, temperature):
    """The soft choice as a softmax over flat pairs, differentiated by JAX."""
    z = (logits(choice) + noise) / temperature
    y = jax.nn.softmax(z.reshape(P, K * J, N), axis=1).reshape(z.shape)
    return y.sum(axis=2), y.sum(axis=1)


def cotangents():
    rng = np.random.default_rng(5)
    return tuple(
        jnp.asarray(rng.normal(size=(P, size, N)), jnp.float32) for size in (K, J)
    )


def pulled(function, *arguments):
    _, pull = jax.vjp(function, *arguments)
    return pull(cotangents())


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
    assert_close(choose(SOFT, choice, noise, t), plain(choice, noise, t), **CLOSE)
    found = pulled(lambda c, t: choose(SOFT, c, noise, t), choice, t)
    exact = pulled(lambda c, t: plain(c, noise, t), choice, t)
    assert_close(found[0], exact[0], rtol=1e-3, atol=1e-3 / temperature)
    np.testing.assert_allclose(found[1], exact[1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("relaxation", HARD)
def test_hard_values_are_the_arg_max(relaxation):
    choice, noise = random_choice()
    left, right = choose(relaxation, choice, noise, jnp.float32(0.5))
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
        return pulled(lambda c, t: choose(relaxation, c, noise, t), choice, t)

    jax.tree.map(np.testing.assert_array_equal, of("straight_through"), of(SOFT))
    probabilities = pulled(lambda c, t: plain(c, 0.0 * noise, 1.0), choice, t)
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
    found = pulled(lambda c: choose("reinmax", c, noise, jnp.float32(0.3)), choice)
    a = flat_logits(choice)
    score = a + np.asarray(noise).reshape(a.shape)
    drawn = score == score.max(axis=1, keepdims=True)
    middle = (drawn + flat_softmax(a)) / 2
    dy = flat_cotangent()
    exact = 2 * pulled_plain(middle, dy) - 0.5 * pulled_plain(flat_softmax(a), dy)
    exact = exact.reshape(P, K, J, N)
    np.testing.assert_allclose(found[0].left, exact.sum(axis=2), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found[0].right, exact.sum(axis=1), rtol=1e-3, atol=1e-4)
    by_weight = exact / np.asarray(choice.weight)
    np.testing.assert_allclose(found[0].weight, by_weight, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("relaxation", ["simple", "reinmax"])
def test_temperature_is_nothing_to_some(relaxation):
    choice, noise = random_choice()
    cold, hot = (
        pulled(lambda c, t=t: choose(relaxation, c, noise, jnp.float32(t)), choice)
        for t in (0.1, 1.0)
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
    mean = np.zeros(K)
    for k in range(K):  # noise that leads to choice k for sure
        noise = jnp.asarray(np.where(np.arange(K) == k, 30.0, 0.0), jnp.float32)

        def f(a, noise=noise):
            y = choose_one(relaxation, a[None, :, None], noise[None, :, None], 1.0)
            return quadratic(y[0, :, 0])

        mean += p[k] * np.asarray(jax.grad(f)(jnp.asarray(a, jnp.float32)))
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
    a = jnp.asarray(np.broadcast_to(np.log(p)[None, :, None], (1, 3, 20_000)))
    noise = jnp.asarray(rng.gumbel(size=a.shape), jnp.float32)
    a = a.astype(jnp.float32)
    out, pull_back = jax.vjp(
        lambda a: choose_one("gumbel_rao", a, noise, jnp.float32(temperature)), a
    )
    (found,) = pull_back(jnp.broadcast_to(jnp.float32(dy)[None, :, None], a.shape))
    plain = jax.vjp(
        lambda a: choose_one("straight_through", a, noise, jnp.float32(temperature)), a
    )[1](jnp.broadcast_to(jnp.float32(dy)[None, :, None], a.shape))[0]
    for k in range(3):
        kept = pull[:, z.argmax(axis=0) == k]
        ours = np.asarray(found[0])[:, np.asarray(out[0, k] == 1)]
        error = np.sqrt(kept.var(1) / kept.shape[1] + ours.var(1) / ours.shape[1])
        assert (np.abs(kept.mean(axis=1) - ours.mean(axis=1)) < 4 * error).all()
        # Ten independent noises, so a tenth of the variance given the choice.
        np.testing.assert_allclose(ours.var(axis=1) * 10, kept.var(axis=1), rtol=0.1)
    assert np.var(found) < 0.9 * np.var(plain)


def test_noise_gets_a_gradient_from_the_soft_choice_alone():
    choice, noise = random_choice()
    t = jnp.float32(0.5)
    for relaxation in HARD:
        (gradient,) = pulled(lambda n, r=relaxation: choose(r, choice, n, t), noise)
        assert (np.asarray(gradient) == 0).all()
    (found,) = pulled(lambda n: choose(SOFT, choice, n, t), noise)
    (exact,) = pulled(lambda n: plain(choice, n, t), noise)
    np.testing.assert_allclose(found, exact, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("relaxation", rx.RELAXATIONS)
def test_gradients_have_gradients(relaxation):
    """Reverse over reverse, as in a penalty on gradients, against differences."""
    choice, noise = random_choice()

    @jax.jit  # gumbel_rao's own noise is made of the bits of this one
    def penalty(left):
        def function(left):
            return choose(relaxation, choice._replace(left=left), noise, 0.8)

        return sum(jnp.sum(g**2) for g in pulled(function, left))

    assert choice.left is not None
    direction = jnp.asarray(np.random.default_rng(6).normal(size=choice.left.shape))
    slope = jnp.sum(jax.grad(penalty)(choice.left) * direction)
    there, back = (penalty(choice.left + step * direction) for step in (1e-3, -1e-3))
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
    noise = jnp.asarray(rng.gumbel(size=(1, K, count)), jnp.float32)
    a = jnp.broadcast_to(
        jnp.log(jnp.asarray(p, jnp.float32))[None, :, None], noise.shape
    )
    found = choose_one("hard", a, noise, jnp.float32(1.0)).mean(axis=(0, 2))
    assert (np.abs(found - p) < 5 * np.sqrt(p * (1 - p) / count)).all()


@pytest.mark.parametrize("relaxation", rx.RELAXATIONS)
def test_the_impossible_is_never_chosen(relaxation):
    choice, noise = random_choice()
    weight = choice.weight.at[:, 0].set(0.0).at[0, 1, 2].set(0.0)
    assert choice.right is not None
    choice = choice._replace(weight=weight, right=choice.right.at[:, 3].set(-jnp.inf))
    left, right = choose(relaxation, choice, noise, jnp.float32(0.5))
    assert (np.asarray(left)[:, 0] == 0).all()
    assert (np.asarray(right)[:, 3] == 0).all()
    np.testing.assert_allclose(left.sum(axis=1), 1, rtol=1e-5)
    gradient = pulled(
        lambda c, t: choose(relaxation, c, noise, t), choice, jnp.float32(0.5)
    )
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))


@pytest.mark.parametrize("relaxation", rx.RELAXATIONS)
def test_nothing_possible(relaxation):
    """The first pair if it must be one, else nothing; the gradient is 0."""
    choice, noise = random_choice()
    assert choice.left is not None
    choice = choice._replace(left=jnp.full_like(choice.left, -jnp.inf))
    left, right = choose(relaxation, choice, noise, jnp.float32(0.5))
    first = 0.0 if relaxation == SOFT else 1.0
    for side in (left, right):
        assert (np.asarray(side)[:, 0] == first).all()
        assert (np.asarray(side)[:, 1:] == 0).all()
    gradient = pulled(
        lambda c, t: choose(relaxation, c, noise, t), choice, jnp.float32(0.5)
    )
    assert all((np.asarray(g) == 0).all() for g in jax.tree.leaves(gradient))


def test_choose_one_is_a_pair_with_one_side():
    choice, noise = random_choice()
    a = jnp.log(choice.weight[:, :, 0])
    found = choose_one(SOFT, a, noise[:, :, 0], jnp.float32(0.5))
    exact = jax.nn.softmax((a + noise[:, :, 0]) / 0.5, axis=1)
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-6)


def test_bad_input():
    with pytest.raises(ValueError, match="relaxation must be one of .*got 'soft'"):
        rx.check("soft")
