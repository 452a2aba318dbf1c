"""Values of any type become floats; missing ones are named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dspc_jax.ops.values import as_values, refuse_huge, refuse_nan


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int64", "float16", "float64", jnp.bfloat16]
)
@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_equal_numbers_of_all_types_become_equal_floats(dtype, array):
    values = as_values("x", array(np.array([[0, 1], [1, 1]]).astype(dtype)))
    assert values.dtype == jnp.float32
    np.testing.assert_array_equal(values, [[0, 1], [1, 1]])


def test_lists_and_wide_integers_keep_their_values():
    np.testing.assert_array_equal(as_values("x", [[1, 2.5]]), [[1, 2.5]])
    np.testing.assert_array_equal(as_values("x", np.array([2**40])), [2.0**40])
    traced = jax.jit(lambda a: as_values("x", [a, 2]))(1)
    np.testing.assert_array_equal(traced, [1, 2])


@pytest.mark.parametrize(
    "wrong", [None, "text", [[1], [1, 2]], {"a": 1}, 1j, (np.zeros(2), np.zeros(3))]
)
def test_what_is_no_array_of_real_numbers_is_refused_in_one_line(wrong):
    with pytest.raises(ValueError, match="^x must be an array of real numbers") as info:
        as_values("x", wrong)
    assert "\n" not in str(info.value)
    assert len(str(info.value)) < 160


def test_a_missing_value_is_named_by_row_and_variable():
    x = np.zeros((3, 4, 1), np.float32)
    x[1, 2] = np.nan
    x = jnp.asarray(x)
    with pytest.raises(ValueError, match="row 1, variable 2 "):
        refuse_nan("x", x)
    refuse_nan("x", x, jnp.asarray(~np.isnan(x[..., 0])))
    refuse_nan("x", jnp.asarray(np.nan_to_num(x, nan=np.inf)))


def test_a_value_whose_square_is_infinite_is_named_by_row_and_variable():
    x = np.zeros((3, 4, 1), np.float32)
    x[2, 1] = -1e18
    x = jnp.asarray(x)
    with pytest.raises(ValueError, match="smaller than 1e.15 .*row 2, variable 1 "):
        refuse_huge("x", x)
    refuse_huge("x", x, x[..., 0] == 0)
    refuse_huge("x", x / 1e4)


def test_a_concrete_array_is_looked_at_in_a_traced_function():
    x = jnp.full((1, 1), jnp.nan)
    with pytest.raises(ValueError, match="row 0, variable 0 "):
        jax.jit(lambda a: (refuse_nan("x", x), a)[1])(1.0)
    jax.jit(lambda x: (refuse_nan("x", x), x)[1])(x)  # not known: nothing to raise
