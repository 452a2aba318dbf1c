"""Functions of many examples, a batch at a time."""

import jax.numpy as jnp
import numpy as np
import pytest

from dspc_jax.ops.streaming import in_batches


@pytest.mark.parametrize("num", [1, 4, 7, 8])
def test_rows_are_those_of_the_whole(num: int):
    """Also where the last batch is not full, and where there is less than one."""
    sizes = []

    def function(x):
        sizes.append(len(x))
        return jnp.sin(x[:, 1:])

    x = jnp.arange(3.0 * num).reshape(num, 3)
    np.testing.assert_allclose(
        in_batches(function, x, batch_size=4), np.sin(x[:, 1:]), rtol=1e-6
    )
    assert sizes == [min(num, 4)]  # traced once
