"""Programs of the tests scale kernels and leaves by few images."""

from collections.abc import Iterator

import pytest

from experiments.models import pixel_kernels


@pytest.fixture(autouse=True, scope="module")
def few_references() -> Iterator[None]:
    """The distances of all pairs of 1000 images cost more than a tiny program."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pixel_kernels, "_NUM_REFERENCES", 200)
        yield
