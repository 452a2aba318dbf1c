"""Who may import whom, read from the syntax tree of every module of ``dspc_jax``.

A new module at the top of ``dspc_jax`` is listed once, in `ORDER` or `BESIDE`; a new
module in a subpackage has the place of its subpackage.
"""

import ast
from collections.abc import Iterator
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "dspc_jax"

# A module may import the modules of the lines above its own, and no other.
ORDER = (
    ("types",),
    ("numerics", "batching", "storage", "torch_files"),
    ("products", "quantiles", "conditional_gumbel"),
    ("region_graph", "relaxation"),
    ("structures", "latent_structure", "folding"),
    ("leaves",),
    ("layers",),
    ("parameters",),
    ("inference", "noise"),
    ("sampling", "implicit"),
    ("path_sampling", "dense_sampling", "moments"),
    ("circuit",),
    ("em", "expected_kernels", "rebar", "serialization", "transformed"),
    ("objectives",),
    ("evaluation",),
)
# Modules beside the chain: what each may import. Only objectives may import them.
BESIDE = {"networks": {"types", "numerics", "torch_files"}}
# Subpackages whose modules may import one another; elsewhere neighbours are strangers.
FRIENDS = {"objectives", "leaves", "networks", "evaluation", "torch_files"}

# Third-party packages, and the modules that may import them.
ALL = "every module"
THIRD_PARTY = {
    "jax": ALL,
    "numpy": ALL,
    "chex": ALL,
    # Tables of special functions, computed once; float64 measures: both on the host.
    "scipy": {"quantiles", "evaluation"},
    "optax": {"em", "objectives"},  # gradient transformations
    "flax": {"networks"},
}
# Structure is data: these know NumPy and no JAX.
WITHOUT_JAX = {"region_graph", "structures", "latent_structure", "folding"}
# Standard modules that read or write files, look at a clock, or keep global state.
IMPURE = {
    *("io", "os", "pathlib", "shutil", "tempfile", "zipfile", "pickle", "sqlite3"),
    *("time", "datetime", "logging", "random", "sys", "subprocess", "threading"),
}
FILES = {
    "serialization": {"io", "os", "pathlib", "shutil", "tempfile", "zipfile"},
    "torch_files": {"io", "zipfile"},  # of bytes in memory: it opens no file
}
IMPURE_CALLS = {"print", "open", "input", "breakpoint", "exec", "eval"}


def modules() -> dict[str, pathlib.Path]:
    """Every module of the package by its dotted name, ``dspc_jax.`` left out."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


def imported(tree: ast.Module, module: str, *, is_package: bool) -> Iterator[str]:
    """Full names of what a module imports, ``from a import b`` as ``a.b``."""
    package = ["dspc_jax", *module.split(".")] if module else ["dspc_jax"]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = node.level - (1 if is_package else 0)
                base = ".".join(filter(None, [*package[: len(package) - up], base]))
            yield from (f"{base}.{alias.name}" for alias in node.names)


def place(name: str) -> int | None:
    """The line of `ORDER` that a top-level name stands in."""
    return next((i for i, line in enumerate(ORDER) if name in line), None)


def may_import(module: str, target: str) -> bool:
    """Whether ``dspc_jax.module`` may import ``dspc_jax.target`` (dotted names)."""
    head, other = module.split(".")[0], target.split(".")[0]
    if head == other:
        # A package's __init__ collects its modules; otherwise only friends meet.
        return module == head or head in FRIENDS
    if head in BESIDE:
        return other in BESIDE[head]
    if other in BESIDE:
        return head == "objectives"
    here, there = place(head), place(other)
    return here is not None and there is not None and there < here


def violations(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """What a module of this name and source does that the design forbids."""
    tree = ast.parse(source)
    head = module.split(".")[0]
    known = set(modules()) | {name for line in ORDER for name in line} | set(BESIDE)
    broken = []
    for name in imported(tree, module, is_package=is_package):
        root, _, rest = name.partition(".")
        if root == "dspc_jax":
            # `from dspc_jax.types import Array` names the module types, not Array.
            while rest and rest not in known:
                rest = rest.rpartition(".")[0]
            if module and not rest:
                broken.append(f"imports the package itself ({name}); name the module")
            elif module and not may_import(module, rest):
                broken.append(f"must not import dspc_jax.{rest}")
        elif root in sys.stdlib_module_names:
            if root in IMPURE - FILES.get(head, set()):
                broken.append(f"must not import {root} (files, clock, global state)")
        elif root not in THIRD_PARTY:
            broken.append(f"must not import {root}")
        elif root == "jax" and head in WITHOUT_JAX:
            broken.append("is structure, plain data: must not import jax")
        elif THIRD_PARTY[root] is not ALL and head not in THIRD_PARTY[root]:
            broken.append(f"must not import {root}; only {THIRD_PARTY[root]} may")
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            broken.append(f"line {node.lineno}: global state")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in IMPURE_CALLS - ({"open"} if head in FILES else set()):
                broken.append(f"line {node.lineno}: calls {node.func.id}()")
        elif isinstance(node, ast.FunctionDef | ast.Lambda):
            broken += default_keys(node)
    return broken


def default_keys(node: ast.FunctionDef | ast.Lambda) -> list[str]:
    """Parameters called key that have a default: silent identical randomness."""
    positional = [*node.args.posonlyargs, *node.args.args]
    defaulted = positional[len(positional) - len(node.args.defaults) :]
    defaulted += [
        argument
        for argument, default in zip(
            node.args.kwonlyargs, node.args.kw_defaults, strict=True
        )
        if default is not None
    ]
    return [
        f"line {node.lineno}: {argument.arg} has a default; keys never have one"
        for argument in defaulted
        if argument.arg in ("key", "keys")
    ]


@pytest.mark.parametrize("module", list(modules()))
def test_module_is_listed_and_imports_only_what_it_may(module):
    path = modules()[module]
    head = module.split(".")[0]
    assert not module or place(head) is not None or head in BESIDE, (
        f"{path.relative_to(ROOT)} has no place in the order of imports: add "
        f"{head!r} to ORDER (or BESIDE) in tests/test_imports.py, and to the picture "
        "in docs/architecture.md"
    )
    broken = violations(module, path.read_text(), is_package=path.stem == "__init__")
    assert not broken, f"{path.relative_to(ROOT)}: " + "; ".join(broken)


def test_every_listed_module_exists():
    found = {module.split(".")[0] for module in modules()}
    listed = {name for line in ORDER for name in line} | set(BESIDE)
    assert listed <= found, f"listed in ORDER or BESIDE, but gone: {listed - found}"


def test_the_public_module_only_collects_names():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    for node in tree.body:
        assignment = isinstance(node, ast.Assign) and all(
            isinstance(target, ast.Name) and target.id.startswith("__")
            for target in node.targets
        )
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        assert isinstance(node, ast.Import | ast.ImportFrom) or assignment or docstring


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("numerics", "from dspc_jax.circuit import build"),
        ("numerics", "import dspc_jax.circuit"),
        ("numerics", "from dspc_jax import circuit"),
        ("numerics", "from . import circuit"),
        ("numerics", "def f():\n    from .circuit import build"),
        ("numerics", "from dspc_jax import batching"),
        ("layers.sum_layer", "from dspc_jax.layers.input_layer import init"),
        ("layers.sum_layer", "from .input_layer import init"),
        ("circuit", "from dspc_jax.objectives.mmd import loss"),
        ("objectives.mmd", "from dspc_jax import evaluation"),
        ("circuit", "from dspc_jax import networks"),
        ("networks", "from dspc_jax import circuit"),
        ("circuit", "import flax.linen as nn"),
        ("circuit", "from absl import flags"),
        ("circuit", "import tensorflow_datasets"),
        ("circuit", "import time"),
        ("circuit", "from experiments import flags"),
        ("circuit", "import pathlib"),
        ("serialization", "import time"),
        ("serialization", "import pickle"),
        ("region_graph", "import jax.numpy as jnp"),
        ("circuit", "print(1)"),
        ("circuit", "open('x')"),
        ("circuit", "def f():\n    global x\n    x = 1"),
        ("circuit", "def f(key=None): ..."),
        ("circuit", "def f(*, key=0): ..."),
        ("circuit", "f = lambda key=0: key"),
    ],
)
def test_a_forbidden_line_is_found(module, source):
    assert violations(module, source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("circuit", "import jax\nfrom dspc_jax.layers.sum_layer import init"),
        ("circuit", "import functools\nfrom dspc_jax import sampling"),
        ("objectives.mmd", "from .kernels import rbf\nfrom dspc_jax import networks"),
        ("objectives.mmd", "from dspc_jax.circuit import Circuit"),
        ("networks", "import flax.linen as nn"),
        ("serialization", "import pathlib\nwith open('x') as f: pass"),
        ("circuit", "def f(key, *, temperature=1.0): ..."),
    ],
)
def test_an_allowed_line_is_not(module, source):
    assert not violations(module, source)
