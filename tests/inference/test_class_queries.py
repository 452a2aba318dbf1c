"""``p(x, y)``, ``p(x | y)`` and ``p(y | x)`` by enumeration, and one by the others."""

import jax
import numpy as np
import pytest
from scipy import special

from tests import cases, oracles


@pytest.mark.parametrize("name", cases.parameters(["depth-0", "nested"], ["nested"]))
def test_joint_is_that_of_the_table_for_every_mask(name):
    case, table = cases.case(name), cases.case(name).table
    x, observed = cases.every_query(case)
    evidence = np.where(observed[..., None], x, np.nan).astype(np.float32)
    circuit = case.circuit

    def queries(params, x, observed):
        return (
            circuit.joint_log_probs(params, x, observed),
            circuit.class_log_probs(params, x, observed),
            circuit.class_posterior(params, x, observed),
            circuit.log_prob(params, x, observed),
        )

    joint, given, posterior, log_p = cases.jit(jax.vmap(queries, (None, 0, 0)))(
        case.params, evidence, observed
    )
    expected = np.array(
        [
            oracles.logsumexp(table.joint[:, table.agrees(a, o)], axis=1)
            for a, o in zip(x, observed, strict=True)
        ]
    )
    np.testing.assert_allclose(joint, expected, rtol=2e-5, atol=2e-5)
    prior = special.log_softmax(np.asarray(case.params.classes, np.float64))
    np.testing.assert_allclose(joint, given + prior, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(special.logsumexp(joint, -1), log_p, atol=2e-5)
    np.testing.assert_allclose(np.exp(joint - log_p[:, None]), posterior, atol=2e-5)
