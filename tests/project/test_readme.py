"""The README's Python examples run as they stand, and its links lead somewhere."""

import functools
import pathlib
import re

import jax
import pytest

from tests import cases

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.optax
@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_examples_run(number, capsys, monkeypatch):
    as_users = functools.partial(jax.jit, compiler_options=cases.AS_USERS)
    monkeypatch.setattr(jax, "jit", as_users)
    names: dict = {}
    exec(compile(EXAMPLES[number], f"README example {number}", "exec"), names)
    if "log_p" in names:  # the conditional query
        assert bool((names["fill"] == names["x"])[names["left"]].all())
        assert bool((names["best"] == names["x"])[names["left"]].all())
    else:  # training: two clusters of deviation 0.1; minus their entropy is 1.07 nats
        assert float(capsys.readouterr().out.split()[0]) > 0.5


def test_there_are_both_examples():
    assert len(EXAMPLES) == 2


@pytest.mark.parametrize(
    "document",
    [
        *("README.md", "BUILD.md", "CONTRIBUTING.md"),
        *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
    ],
)
def test_links_lead_to_files(document):
    path = ROOT / document
    links = re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text())
    missing = [link for link in links if not (path.parent / link).exists()]
    assert not missing
