"""Who may import whom, folder by folder, read from the syntax tree of every module.

A folder is a subject, and the subjects stand in the theory's order: arrows point one
way between folders, and inside of a folder there is no circle. A new folder, or a new
module beside the folders, is listed once, in `LIBRARY` or `PROGRAMS`.
"""

import ast
from collections.abc import Iterator
import graphlib
import pathlib
import sys
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).parents[2]

_CORE = ("arguments", "types", "ops")
_LAYERS = (*_CORE, "structure", "leaves", "layers", "tying", "parameters")
_QUERIES = (*_LAYERS, "inference", "sampling", "starts", "examples")
_CIRCUIT = (*_QUERIES, "queries", "circuit")
# A folder, or a module at the top of `dspc_jax`, and those that it may import.
LIBRARY = {
    "arguments": (),
    "types": (),
    "ops": ("arguments", "types"),
    "structure": ("arguments",),
    "leaves": _CORE,
    "layers": (*_CORE, "leaves"),
    "tying": (*_CORE, "structure", "layers"),
    "parameters": (*_CORE, "structure", "leaves", "layers", "tying"),
    "inference": _LAYERS,
    "sampling": (*_LAYERS, "inference"),
    "starts": _LAYERS,
    "examples": _LAYERS,
    "expectations": _QUERIES,
    "queries": (*_QUERIES, "expectations"),
    "circuit": (*_LAYERS, "queries", "protocols", "integral_protocols"),
    "rows": _CIRCUIT,
    "analysis": (*_CIRCUIT, "rows"),
    "sharpening": _CIRCUIT,
    "supports": (*_CIRCUIT, "examples"),
    "samplers": ("arguments", "queries", "types"),
    "registry": (),
    "protocols": ("types",),
    "integral_protocols": ("types",),
    "serialization": (*_CIRCUIT, "registry", "flows", "safe_files"),
    "ports": (*_CIRCUIT, "rows", "safe_files"),
    "learning": (*_CIRCUIT, "supports"),
    "chow_liu": (*_CIRCUIT, "rows", "learning"),
    "hidden_markov": (*_CIRCUIT, "rows"),
    "integral_circuits": (*_CIRCUIT, "networks"),
    # Beside the chain: what is no circuit.
    "interfaces": ("types",),
    "safe_files": (),
    "networks": (*_CORE, "interfaces"),
    "flows": (*_CIRCUIT, "networks", "protocols"),
    "objectives": (*_CIRCUIT, "learning", "interfaces"),
    "evaluation": (*_CORE, "objectives", "safe_files"),
}
_ENGINE = ("console", "data", "engine")
_TRAINABLE = (*_ENGINE, "models", "losses")
_COMMANDS = ("ll", "mmd", "adv", "pae", "gan", "mmd_gan", "vae", "ade", "classifier")
PROGRAMS = {
    "console": (),
    "data": ("console",),
    "engine": ("console", "data"),
    "models": _ENGINE,
    "losses": (*_ENGINE, "models"),
    **dict.fromkeys(_COMMANDS, _TRAINABLE),
    "two_dimensional": _TRAINABLE,
    "synthetic": ("console", "engine", "two_dimensional"),
    "binary_tables": _TRAINABLE,
    "measuring": (*_TRAINABLE, *_COMMANDS),
    "evaluate": (*_TRAINABLE, "measuring"),
    "report": (*_ENGINE, "measuring"),
    "study": (*_ENGINE, "measuring", "evaluate", "report"),
    "commands": ("console", "engine"),
    "__main__": ("commands",),
}
TABLES = {"dspc_jax": LIBRARY, "experiments": PROGRAMS}
# Folders whose modules do not import one another.
STRANGERS = {"layers"}

# Third-party packages of the library, and who may import them; None: every module.
THIRD_PARTY: dict[str, set[str] | None] = {
    "jax": None,
    "numpy": None,
    "chex": None,
    # Tables of special functions, computed once; float64 measures and linear programs:
    # all on the host.
    "scipy": {"leaves.quantiles", "evaluation", "analysis.wasserstein"},
    "optax": {"learning", "objectives"},  # gradient transformations
    # Networks; flows, whose conditioners are networks; the networks that measure.
    "flax": {
        *("networks", "integral_circuits", "flows"),
        *("evaluation.inception", "evaluation.efficientnet_lite"),
    },
}
# Structure is data: it knows NumPy and no JAX.
WITHOUT_JAX = {"arguments", "structure", "safe_files"}
# Standard modules that read or write files, look at a clock, or keep global state.
IMPURE = {
    *("io", "os", "pathlib", "shutil", "tempfile", "zipfile", "pickle", "sqlite3"),
    *("time", "datetime", "logging", "random", "sys", "subprocess", "threading"),
}
FILES = {
    "serialization": {"io", "os", "pathlib"},
    "ports": {"os", "pathlib"},
    "safe_files": {"io", "zipfile"},  # of bytes in memory: it opens no file
}
IMPURE_CALLS = {"print", "open", "input", "breakpoint", "exec", "eval"}


class Module(NamedTuple):
    """A module of one of the two packages.

    Attributes:
        package: ``dspc_jax`` or ``experiments``.
        name: dotted, without the package; empty for the package itself.
        is_package: whether it is an ``__init__``.
    """

    package: str
    name: str
    is_package: bool = False

    @property
    def folder(self) -> str:
        """The row of the table that the module belongs to."""
        return self.name.partition(".")[0]

    def is_in(self, places: set[str] | None) -> bool:
        """Whether one of the places is the module or holds it; None is everywhere."""
        if places is None:
            return True
        return any(f"{self.name}.".startswith(f"{place}.") for place in places)


def modules(package: str) -> dict[Module, pathlib.Path]:
    """Every module of a package, with its file."""
    paths = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT / package).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        paths[Module(package, name, path.stem == "__init__")] = path
    return paths


MODULES = {package: modules(package) for package in TABLES}
NAMES = {package: {m.name for m in MODULES[package]} for package in TABLES}


def imported(tree: ast.Module, module: Module) -> Iterator[str]:
    """Full names of what a module imports, ``from a import b`` as ``a.b``."""
    parents = [module.package, *module.name.split(".")] if module.name else []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = node.level - (1 if module.is_package else 0)
                base = ".".join(filter(None, [*parents[: len(parents) - up], base]))
            yield from (f"{base}.{alias.name}" for alias in node.names)


def targets(tree: ast.Module, module: Module) -> Iterator[tuple[str, str]]:
    """The packages and modules of this project that a module imports."""
    for name in imported(tree, module):
        package, _, rest = name.partition(".")
        if package not in TABLES:
            continue
        known = NAMES[package] | set(TABLES[package])
        # `from dspc_jax.types import Array` names the module types, not Array.
        while rest and rest not in known:
            rest = rest.rpartition(".")[0]
        yield package, rest


def may_import(module: Module, package: str, target: str) -> bool:
    """Whether the module may import this module of this package."""
    if package != module.package:  # programs use the library, never the other way round
        return module.package == "experiments"
    if not target:
        return False
    folder = target.partition(".")[0]
    if folder != module.folder:
        return folder in TABLES[package].get(module.folder, ())
    return module.is_package or module.folder not in STRANGERS


def violations(module: Module, source: str) -> list[str]:
    """What a module with this source does that the design forbids."""
    tree = ast.parse(source)
    broken = [
        f"must not import {package}{target and '.' + target}"
        for package, target in targets(tree, module)
        if module.name and not may_import(module, package, target)
    ]
    for name in imported(tree, module):
        if name == "typing.TYPE_CHECKING" or (
            name in ("importlib", "importlib.import_module")
            and module.name != "data.tfds"  # of an optional package
        ):
            broken.append(f"must not import {name}, which hides an arrow")
    if module.package == "dspc_jax":
        broken += impurities(tree, module)
    return broken


def impurities(tree: ast.Module, module: Module) -> list[str]:
    """What a module of the library does beside computing."""
    broken = []
    for name in imported(tree, module):
        root = name.partition(".")[0]
        if root in TABLES:
            continue
        if root in sys.stdlib_module_names:
            if root in IMPURE - FILES.get(module.folder, set()):
                broken.append(f"must not import {root} (files, clock, global state)")
        elif root not in THIRD_PARTY or not module.is_in(THIRD_PARTY[root]):
            broken.append(f"must not import {root}")
        elif root == "jax" and module.folder in WITHOUT_JAX:
            broken.append("is plain data: must not import jax")
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            broken.append(f"line {node.lineno}: global state")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            allowed = {"open"} if module.folder in FILES else set()
            if node.func.id in IMPURE_CALLS - allowed:
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


@pytest.mark.parametrize("package", TABLES)
def test_modules_import_only_what_they_may(package):
    broken = {
        str(path.relative_to(ROOT)): lines
        for module, path in MODULES[package].items()
        if (lines := violations(module, path.read_text()))
    }
    assert not broken


@pytest.mark.parametrize("package", TABLES)
def test_every_folder_is_listed_and_every_row_exists(package):
    folders = {module.folder for module in MODULES[package]} - {""}
    assert folders == set(TABLES[package]), "list it in tests/project/test_imports.py"


@pytest.mark.parametrize("package", TABLES)
def test_no_folders_and_no_modules_form_a_circle(package):
    graphlib.TopologicalSorter(TABLES[package]).prepare()  # raises CycleError
    arrows = {}
    for module, path in MODULES[package].items():
        pairs = set(targets(ast.parse(path.read_text()), module))
        arrows[module.name] = {name for other, name in pairs if other == package}
        arrows[module.name] -= {module.name}
    graphlib.TopologicalSorter(arrows).prepare()


def test_the_public_module_only_collects_names():
    tree = ast.parse((ROOT / "dspc_jax" / "__init__.py").read_text())
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
        ("ops.numerics", "from dspc_jax.circuit import build"),
        ("ops.numerics", "import dspc_jax.circuit"),
        ("ops.numerics", "from dspc_jax import circuit"),
        ("ops.numerics", "from .. import circuit"),
        ("ops.numerics", "def f():\n    from ..circuit import build"),
        ("ops.numerics", "import dspc_jax"),
        ("layers.sum_layer", "from dspc_jax.layers.input_layer import init"),
        ("layers.sum_layer", "from .input_layer import init"),
        ("circuit", "from dspc_jax.objectives.mmd import loss"),
        ("objectives.mmd", "from dspc_jax import evaluation"),
        ("objectives.mmd", "from dspc_jax import networks"),
        ("circuit", "from dspc_jax import networks"),
        ("networks.layers", "from dspc_jax import circuit"),
        ("circuit", "import flax.linen as nn"),
        ("evaluation.frechet", "import flax.linen as nn"),
        ("circuit", "from absl import flags"),
        ("circuit", "import tensorflow_datasets"),
        ("circuit", "import time"),
        ("circuit", "from experiments import flags"),
        ("circuit", "import pathlib"),
        ("circuit", "import importlib"),
        ("circuit", "from typing import TYPE_CHECKING"),
        ("serialization", "import time"),
        ("serialization", "import pickle"),
        ("structure.folding", "import jax.numpy as jnp"),
        ("circuit", "print(1)"),
        ("circuit", "open('x')"),
        ("circuit", "def f():\n    global x\n    x = 1"),
        ("circuit", "def f(key=None): ..."),
        ("circuit", "def f(*, key=0): ..."),
        ("circuit", "f = lambda key=0: key"),
    ],
)
def test_a_forbidden_line_of_the_library_is_found(module, source):
    assert violations(Module("dspc_jax", module), source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("engine.training", "from experiments import ll"),
        ("engine.training", "from experiments.models.circuit import Model"),
        ("engine.training", "from importlib import import_module"),
        ("mmd", "from experiments import ll"),
        ("models.circuit", "from experiments.losses import mixture"),
        ("report.values", "from experiments import study"),
    ],
)
def test_a_forbidden_line_of_the_programs_is_found(module, source):
    assert violations(Module("experiments", module), source)


@pytest.mark.parametrize(
    ("package", "module", "source"),
    [
        ("dspc_jax", "queries", "import jax\nfrom dspc_jax.layers.sum_layer import x"),
        ("dspc_jax", "queries", "import functools\nfrom dspc_jax.sampling import path"),
        ("dspc_jax", "objectives.mmd", "from .kernels import rbf"),
        ("dspc_jax", "objectives.mmd", "from dspc_jax.interfaces import Critic"),
        ("dspc_jax", "objectives.mmd", "from dspc_jax.circuit import Circuit"),
        ("dspc_jax", "networks.layers", "import flax.linen as nn"),
        ("dspc_jax", "serialization", "import pathlib\nwith open('x') as f: pass"),
        ("dspc_jax", "circuit", "def f(key, *, temperature=1.0): ..."),
        ("experiments", "mmd", "import time, dspc_jax as pc\nprint(1)"),
        ("experiments", "study.plan", "from experiments.report import values"),
    ],
)
def test_an_allowed_line_is_not(package, module, source):
    assert not violations(Module(package, module), source)
