"""Bits of alternatives: uniform, independent, and leading to exact choices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dspc_jax.sampling import hashing, noise, path
from tests import cases

COUNT = 2**16
LEAST = 1e-4  # of about 100 p-values here, at fixed keys, none is smaller


def words(seed, count=COUNT):
    """The 64 bits of choices, as a sampler draws them."""
    return jax.random.bits(jax.random.key(seed), (count, 2), jnp.uint32)


def counters(count):
    """The 64 bits of choices that differ in few bits: a hard case."""
    numbers = jnp.arange(count, dtype=jnp.uint32)
    return jnp.stack([numbers % 256, numbers // 256], axis=-1)


def bits_of(choices, size):
    index = jnp.arange(size, dtype=jnp.uint32)[None]
    return np.asarray(
        hashing.alternative_bits(choices[:, :1], choices[:, 1:], index), np.uint64
    )


def p_value(cells, size):
    """Of the chi-square test that cells ``0..size-1`` are equally frequent."""
    return stats.chisquare(np.bincount(cells.ravel(), minlength=size)).pvalue


CHOICES = {"random": words(0), "counters": counters(COUNT)}


@pytest.mark.parametrize("name", CHOICES)
def test_bits_are_uniform_and_independent(name):
    """One alternative; two of a choice; of neighboring choices; high and low bits."""
    bits = bits_of(CHOICES[name], 17)
    p_values = []
    for shift in (0, 8, 16, 24):
        byte = (bits >> shift) & 255
        p_values += [p_value(column, 256) for column in byte.T[:4]]
    for shift in (0, 13, 28):
        low = ((bits >> shift) & 15).astype(np.int64)
        high = (bits >> 28).astype(np.int64)
        for distance in (1, 2, 16):
            pairs = 16 * low[:, :-distance] + high[:, distance:]
            p_values.append(p_value(pairs, 256))
        for distance in (1, 2, 256):
            pairs = 16 * low[:-distance] + high[distance:]
            p_values.append(p_value(pairs, 256))
    p_values.append(p_value(16 * ((bits & 15).astype(np.int64)) + high, 256))
    assert min(p_values) > LEAST


def test_bits_of_pairs_are_uncorrelated():
    """All 32 x 32 pairs of bits of two alternatives, each within 5 deviations."""
    bits = bits_of(CHOICES["random"], 3)
    signs = [
        2.0 * ((column[:, None] >> np.arange(32, dtype=np.uint64)) & 1) - 1
        for column in bits.T
    ]
    for other in signs[1:]:
        z = signs[0].T @ other / np.sqrt(COUNT)
        assert np.abs(z).max() < 5
    z = np.triu(signs[0].T @ signs[0], 1) / np.sqrt(COUNT)
    assert np.abs(z).max() < 5


def test_every_bit_of_a_choice_counts():
    """Flipping one of the 64 flips each bit of an alternative in half of the cases."""
    choices = CHOICES["random"][: 2**12]
    before = bits_of(choices, 2)
    for word in range(2):
        for bit in range(0, 32, 5):
            flipped = choices.at[:, word].set(choices[:, word] ^ np.uint32(2**bit))
            changed = before ^ bits_of(flipped, 2)
            share = ((changed[..., None] >> np.arange(32, dtype=np.uint64)) & 1).mean(0)
            np.testing.assert_allclose(share, 0.5, atol=5 * 0.5 / 2**6)


def test_a_weak_hash_is_found():
    """Negative control: one round, as a linear counter, fails the test of pairs."""
    choices = CHOICES["counters"]
    index = jnp.arange(17, dtype=jnp.uint32)[None]
    bits = choices[:, :1] + choices[:, 1:] * hashing.GOLDEN + index * hashing.GOLDEN
    high = np.asarray(bits >> 28, np.int64)
    assert p_value(16 * high[:, :-1] + high[:, 1:], 256) < 1e-9


WEIGHTS = {
    "two": [0.5, 0.5],
    "two uneven": [0.999, 0.001],
    "sixteen": [1 / 16] * 16,
    "sixteen uneven": 0.5 ** np.arange(16),
    "many": [1 / 256] * 256,
    "many uneven": np.arange(1, 257) ** -1.5,
    "one of many": [0.99, *[0.01 / 255] * 255],
}


@jax.jit
def _frequencies(choices, weights):
    def part(choices):
        uniform = noise.alternatives(choices, weights.shape[0], jnp.float32)
        scores = weights[None] * noise.exp_gumbel(uniform)
        chosen = path.first_greatest(scores)
        return jnp.bincount(chosen, length=weights.shape[0])

    return jnp.sum(jax.lax.map(part, choices.reshape(64, -1, 2)), axis=0)


@pytest.mark.parametrize(
    "name", cases.parameters(WEIGHTS, ["many", "many uneven", "one of many"])
)
def test_choices_follow_the_weights(name):
    """2**20 arg maxes, against the weights by chi-square."""
    weights = np.asarray(WEIGHTS[name], np.float64)
    weights = weights / weights.sum()
    count = 2**20
    counts = np.asarray(
        _frequencies(words(1, count), jnp.asarray(weights, jnp.float32))
    )
    assert counts.sum() == count
    assert stats.chisquare(counts, count * weights).pvalue > LEAST
    # Negative control: weights that are up to a fifth off.
    off = weights * np.linspace(0.8, 1.2, len(weights))
    assert stats.chisquare(counts, count * off / off.sum()).pvalue < 1e-9


def test_choices_of_neighbors_are_independent():
    """Pairs of arg maxes among four, of choices with bits that differ by a counter."""
    weights = np.asarray([0.4, 0.3, 0.2, 0.1])
    uniform = noise.alternatives(counters(2**17), 4, jnp.float32)
    scores = jnp.asarray(weights, jnp.float32)[None] * noise.exp_gumbel(uniform)
    chosen = np.asarray(path.first_greatest(scores))
    table = np.zeros((4, 4))
    np.add.at(table, (chosen[:-1], chosen[1:]), 1)
    expected = np.outer(table.sum(1), table.sum(0)) / table.sum()
    statistic = ((table - expected) ** 2 / expected).sum()
    assert stats.chi2.sf(statistic, 9) > LEAST
    assert stats.chisquare(table.sum(0), table.sum() * weights).pvalue > LEAST


def test_float64_has_the_same_numbers_with_more_digits():
    with jax.enable_x64(True):
        bits = words(2, 2**12)
        short = np.asarray(noise.alternatives(bits, 16, jnp.float32), np.float64)
        long = np.asarray(noise.alternatives(bits, 16, jnp.float64))
    assert long.dtype == np.float64
    assert 0 < np.abs(long - short).max() < 2.0**-23
    assert 0 < long.min() < long.max() < 1
    rest = (long - short) * 2.0**23 + 0.5
    assert stats.kstest(rest.ravel(), "uniform").pvalue > LEAST
    assert abs(np.corrcoef(rest.ravel(), short.ravel())[0, 1]) < 5 / 2**8


def test_numbers_pass_through():
    """Noise that holds numbers, as that given the choices, is taken as it is."""
    numbers = jnp.full((3, 5), 0.5)
    assert noise.alternatives(numbers, 5, jnp.float32) is numbers


def test_bits_along_another_axis_are_the_same():
    bits = words(3, 6).reshape(2, 3, 2)
    last = noise.alternatives(bits, 4, jnp.float32)
    first = noise.alternatives(jnp.moveaxis(bits, -1, 1), 4, jnp.float32, axis=1)
    np.testing.assert_array_equal(last, jnp.moveaxis(first, 1, -1))
