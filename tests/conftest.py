"""A strict session: what JAX would forgive silently is an error in every test.

Compiled programs are kept in pytest's cache (``pytest --cache-clear`` empties it), and
shared by the workers, by the programs that tests start, and by later runs. The fast run
spends less on machine code; slow tests compile as users do (`cases.user_jit`: always).
Tracing is most of what is left, so what slows tracing is on only where it can find
something.
"""

from collections.abc import Iterator
import gc
import os
import pathlib

# XLA warns of every program that it takes out of the cache, in a line of a page.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import pytest

# A broadcast between different ranks is how a batch axis meets a unit axis unnoticed.
jax.config.update("jax_numpy_rank_promotion", "raise")
# Tracing makes millions of small objects, hardly any of them garbage in a circle.
gc.set_threshold(100_000, 50, 50)
# Compiled programs need not know which line of Python asked for what.
jax.config.update("jax_traceback_in_locations_limit", 0)


def pytest_configure(config: pytest.Config) -> None:
    """Keeps what is compiled, however little time it took, unless the user says where.

    By environment variables, so that the programs that tests start do the same.
    """
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    settings = {
        "jax_compilation_cache_dir": folder or str(config.cache.mkdir("jax")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in settings.items():
        os.environ[name.upper()] = str(value)
        jax.config.update(name, value)
    flags = os.environ.get("XLA_FLAGS", "")
    if config.getoption("markexpr") == "not slow" and _QUICK not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_QUICK}".strip()


# XLA's own passes are those of every program. LLVM's are left out, fused loops are
# written by the older of XLA's two emitters, and one program is one module, not up to
# 32 that are compiled side by side: more than a third of the time of the suite.
_QUICK = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    " --xla_cpu_parallel_codegen_split_count=1"
)

_TESTS = pathlib.Path(__file__).parent
_PROGRAMS = _TESTS / "experiments"
_DRAWS = (_TESTS / "sampling", _TESTS / "objectives")


@pytest.fixture(autouse=True)
def dtype_promotion(request: pytest.FixtureRequest) -> Iterator[None]:
    """Forbids implicit dtype promotion, except where optax's own code runs.

    Strict promotion cannot hold for optax: the bias correction of its Adam computes
    ``decay ** count`` with an int32 count. Tests of the programs, and tests marked
    ``optax``, therefore run under the standard rules.
    """
    programs = _PROGRAMS in request.path.parents
    optax = request.node.get_closest_marker("optax") is not None
    with jax.numpy_dtype_promotion("standard" if programs or optax else "strict"):
        yield


@pytest.fixture(autouse=True, scope="module")
def garbage() -> Iterator[None]:
    """What a module has left (JAX's caches) is not looked through for garbage again."""
    yield
    forget_programs()
    gc.freeze()


@pytest.fixture(autouse=True)
def room_for_programs(request: pytest.FixtureRequest) -> Iterator[None]:
    """A module of slow tests, compiled as users do, may have too many programs."""
    yield
    if request.node.get_closest_marker("slow") is not None:
        forget_programs()


def forget_programs(most: int = 40_000) -> None:
    """Forgets compiled programs where the process has more memory maps than this.

    Each program has some, those of a slow test up to a few hundred. Linux allows
    65,530 (vm.max_map_count); the next program then ends the process inside LLVM, most
    often where JAX writes it into its cache: "Segmentation fault" is all one sees.
    """
    maps = pathlib.Path("/proc/self/maps")  # of Linux
    if maps.exists() and maps.read_bytes().count(b"\n") > most:
        jax.clear_caches()


@pytest.fixture(autouse=True)
def key_reuse(request: pytest.FixtureRequest) -> Iterator[None]:
    """Forbids that a key is used twice, which makes draws dependent.

    The check is experimental in JAX, and looks at every program again. It is on where
    samples are drawn, and for all slow tests. It sees a second use inside the library's
    functions; that a sampler has used up its key, it does not see from outside (a
    custom primitive consumes nothing, as far as the check knows).
    """
    draws = any(folder in request.path.parents for folder in _DRAWS)
    slow = request.node.get_closest_marker("slow") is not None
    with jax.debug_key_reuse(draws or slow):
        yield


@pytest.fixture
def key() -> jax.Array:
    """A typed key. Every test gets the same one: a failure must repeat."""
    return jax.random.key(0)


@pytest.fixture
def x64() -> Iterator[None]:
    """64-bit types for one test, for finite differences; users run float32."""
    with jax.enable_x64(True):
        yield
