"""Configuration is code: the names in project files exist, and they agree."""

import ast
import importlib.metadata
import pathlib
import re
import sys
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONSTRAINTS = [
    line
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


def required() -> list[Requirement]:
    extras = PROJECT["project"]["optional-dependencies"]
    lines = [*PROJECT["project"]["dependencies"]]
    lines += [
        line for name in ("test", "dev", "data", "features") for line in extras[name]
    ]
    requirements = [Requirement(line) for line in lines]
    return [r for r in requirements if canonicalize_name(r.name) != "dspc-jax"]


def test_constraints_are_plain_pins():
    pin = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*==[0-9][0-9a-z.]*")
    assert not [line for line in CONSTRAINTS if not pin.fullmatch(line)]


def test_every_requirement_is_pinned_to_a_version_it_allows():
    pins = dict(line.split("==") for line in CONSTRAINTS)
    for requirement in required():
        name = canonicalize_name(requirement.name)
        assert name in pins, f"add {name} to constraints.txt"
        assert requirement.specifier.contains(pins[name]), name


def test_the_type_checker_sees_every_folder_of_code():
    # A folder that is named wrongly is silently not checked.
    folders = {path.parent.name for path in ROOT.glob("*/*.py")}
    assert set(PROJECT["tool"]["pyright"]["include"]) == folders


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "dspc_jax" / "py.typed").exists()
    assert PROJECT["tool"]["setuptools"]["package-data"]["dspc_jax"] == ["py.typed"]


def test_the_versions_agree():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {PROJECT['project']['version']}\n" in citation


def test_continuous_integration_runs_the_readme_command():
    command = "pip install -c constraints.txt -e '.[test]' && pytest"
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()
    assert command in (ROOT / "README.md").read_text()


def test_files_have_one_purpose():
    # About 350 lines, says CONTRIBUTING.md; 400 is where we stop arguing.
    code = [
        path
        for folder in ("dspc_jax", "experiments", "benchmarks", "tests")
        for path in (ROOT / folder).rglob("*.py")
    ]
    num_lines = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in code
    }
    assert not {name: num for name, num in num_lines.items() if num > 400}


def test_every_import_of_the_packages_is_a_declared_dependency():
    # A package that only comes along with another one can go away with it.
    declared = {canonicalize_name(requirement.name) for requirement in required()}
    providers = importlib.metadata.packages_distributions()
    missing = {}
    for folder in ("dspc_jax", "experiments", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            for name in imported_roots(path):
                if name in sys.stdlib_module_names or (ROOT / name).is_dir():
                    continue
                if not declared & set(map(canonicalize_name, providers.get(name, []))):
                    missing[name] = str(path.relative_to(ROOT))
    assert not missing, "add to pyproject.toml and constraints.txt"


def imported_roots(path: pathlib.Path) -> set[str]:
    """The top-level names that a file imports absolutely."""
    roots = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            roots.add(node.module.split(".")[0])
    return roots
