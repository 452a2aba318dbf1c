"""Programs in the fast run: their steps compile as the circuits of `tests.cases` do."""

from collections.abc import Iterator

import jax
import pytest

from tests import cases


@pytest.fixture(scope="module", autouse=True)
def quick_compilation(request: pytest.FixtureRequest) -> Iterator[None]:
    """`cases.jit` in the place of ``jax.jit``; slow tests compile as users do."""
    if request.config.getoption("markexpr") != "not slow":
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "jit", cases.jit)
        yield
