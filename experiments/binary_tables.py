"""Hidden Chow-Liu trees on binary tables: ``python -m experiments.binary_tables``.

Mixtures of trees, of several sizes and pseudocounts, start from clusters and learn by
EM on mini-batches; each stands as it was after its best epoch on the validation rows.
The best of them, and the mixture of all, stand beside what others have published.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import csv
import dataclasses
import functools
from pathlib import Path
import re
import time
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import optax

import dspc_jax as pc
from experiments import data
from experiments.console import summary
from experiments.console.errors import UserError
from experiments.engine import app, flags
from experiments.engine.files import write_atomically
from experiments.engine.workdir import claim
from experiments.models import tree_mixture

PUBLISHED = {
    "nltcs": (-6.11, -6.02, -6.01, -6.02, -5.99),
    "plants": (-12.98, -12.54, -13.44, -13.68, -14.26),
    "baudio": (-40.50, -39.79, -39.96, -39.88, -39.77),
    "jester": (-53.48, -52.86, -52.97, -52.56, -52.46),
    "bnetflix": (-57.33, -56.36, -56.85, -56.54, -56.27),
    "accidents": (-30.04, -26.98, -35.49, -35.59, -26.74),
    "pumsb_star": (-24.78, -22.41, -32.53, -31.95, -23.64),
    "dna": (-82.52, -81.21, -97.23, -96.09, -79.05),
    "bbc": (-250.69, -248.93, -252.14, -248.33, -251.04),
}
"""Test log-likelihoods in nats, as the papers' tables have them, of `PEERS`."""
PEERS = ("LearnSPN", "ID-SPN", "RAT-SPN", "EiNet", "HCLT")
_PROGRAM = "experiments.binary_tables"
_CHOW_LIU = "chow_liu"
_CHUNK = 500  # rows in one call of the likelihood
_COLUMNS = ("table", "model", "pseudocount", "epochs", "valid", "test", "seconds")


@dataclasses.dataclass(frozen=True)
class TableSettings:
    """The flags of the program."""

    data_dir: str | None = flags.flag(
        None,
        "folder with the files of debd, or an archive of them: see docs/data.md",
        free=True,
        kind=flags.local_path,
    )
    tables: str = flags.flag(
        ",".join(PUBLISHED), "names of tables, with commas", free=True
    )
    models: str = flags.flag(
        "1x32,8x16",
        "trees and units of each latent in them, with commas; chow_liu: the tree of "
        "the variables themselves, by counting, without latents",
    )
    pseudocounts: str = flags.flag(
        "0.05,0.5",
        "rows that every sum and leaf count in addition to all training rows, with "
        "commas; each with each model",
    )
    num_epochs: int = flags.flag(
        20, "passes of the training rows, at most", flags.at_least(1)
    )
    patience: int = flags.flag(
        3,
        "passes without a better validation after which a circuit is left",
        flags.at_least(1),
    )
    batch_size: int = flags.flag(
        0, "rows a step; 0: a sixteenth of them, at most 250", flags.at_least(0)
    )
    first_step_size: float = flags.flag(
        0.1, "of EM; it falls exponentially", flags.within(0, 1)
    )
    last_step_size: float = flags.flag(0.01, "the last one", flags.within(0, 1))
    seed: int = flags.flag(0, "seed of starts, batches and trees", flags.at_least(0))
    workdir: str = flags.flag(
        "out/binary_tables",
        "folder of results.csv; a table that is in it is not trained again, and the "
        "other flags must be the same",
        free=True,
        kind=flags.local_path,
    )


class Outcome(NamedTuple):
    """A trained circuit.

    Attributes:
        valid: log-likelihoods of the validation rows, ``[n]`` nats.
        test: those of the test rows.
        num_epochs: after which validation was best.
    """

    valid: np.ndarray
    test: np.ndarray
    num_epochs: int


def train(
    table: data.Dataset,
    settings: TableSettings,
    model: str,
    pseudocounts: Sequence[float],
) -> Iterator[Outcome]:
    """Trains a mixture of trees with several pseudocounts, from one start.

    Each keeps what is best on the validation rows.

    Args:
        table: the rows.
        settings: the flags.
        model: its trees and units, ``TREESxUNITS``, or ``chow_liu``.
        pseudocounts: rows that every sum and leaf count in addition to all training
            rows; they are like those of all units of the region together.

    Yields:
        The outcome of each.
    """
    if model == _CHOW_LIU:
        yield from (_counted(table, count) for count in pseudocounts)
        return
    x = table.train.astype(np.float32)
    num_trees, num_units = map(int, model.split("x"))
    start_key = jax.random.key(settings.seed)
    params: Any
    circuit, params = tree_mixture.started(start_key, x, num_trees, num_units)
    batch_size = settings.batch_size or min(250, -(-len(x) // 16))
    batch_size = min(batch_size, len(x))
    num_steps = len(x) // batch_size
    first, last = settings.first_step_size, settings.last_step_size
    decay = settings.num_epochs * num_steps
    schedule = optax.exponential_decay(first, decay, last / first)
    log_prob = jax.jit(jax.vmap(circuit.log_prob, (None, 0)))
    epoch = jax.jit(functools.partial(_epoch, circuit, schedule))
    rows = jnp.asarray(x)
    for pseudocount in pseudocounts:
        rng = np.random.default_rng(settings.seed)
        share = pseudocount * batch_size / len(x)
        state: Any = (params, pc.em(circuit, step_size=schedule).init(params))
        best: tuple[float, Any, int] = (-np.inf, params, 0)
        for n in range(1, settings.num_epochs + 1):
            batches = rng.permutation(len(x))[: num_steps * batch_size]
            state = epoch(share, *state, rows, batches.reshape(num_steps, batch_size))
            score = _log_probs(log_prob, state[0], table.valid).mean()
            if score > best[0]:
                best = (score, state[0], n)
            if n - best[2] >= settings.patience:
                break
        parts = (table.valid, table.test)
        valid, test = (_log_probs(log_prob, best[1], part) for part in parts)
        yield Outcome(valid, test, best[2])


def _counted(table: data.Dataset, pseudocount: float) -> Outcome:
    """The Chow-Liu tree: nothing is trained."""
    config, params = pc.chow_liu_tree(
        table.train, num_values=2, pseudocount=pseudocount / 2
    )
    log_prob = jax.jit(jax.vmap(pc.build(config).log_prob, (None, 0)))
    valid, test = (_log_probs(log_prob, params, r) for r in (table.valid, table.test))
    return Outcome(valid, test, 0)


def _epoch(circuit, schedule, pseudocount, params, state, x, batches):
    """One pass of the rows."""
    em: Any = pc.em(
        circuit,
        step_size=schedule,
        pseudocount=pseudocount,
        smooth_towards="marginal",
    )

    def step(carry, rows):
        params, state = carry
        counts = pc.expected_counts(circuit, params, x[rows])
        change: Any
        change, state = em.update(counts, state, params)
        return (optax.apply_updates(params, change), state), None

    return jax.lax.scan(step, (params, state), batches)[0]


def _log_probs(log_prob: Callable[..., Any], params: Any, rows: np.ndarray):
    """Log-likelihoods ``[n]`` of rows, float64; every call has as many."""
    places = np.arange(-(-len(rows) // _CHUNK) * _CHUNK) % len(rows)
    parts = [
        log_prob(params, rows[part].astype(np.float32))
        for part in places.reshape(-1, _CHUNK)
    ]
    return np.concatenate(parts)[: len(rows)].astype(np.float64)


def mixture_weights(valid: np.ndarray, num_steps: int = 200) -> np.ndarray:
    """Weights of the mixture of models that fits the validation rows best, by EM.

    Args:
        valid: log-likelihoods ``[M, n]``.
        num_steps: of EM.

    Returns:
        ``[M]``, adding up to 1.
    """
    weights = np.full(len(valid), 1 / len(valid))
    for _ in range(num_steps):
        joint = weights[:, None] * np.exp(valid - valid.max(axis=0))
        weights = (joint / joint.sum(axis=0)).mean(axis=1)
    return weights


def mixed(weights: np.ndarray, log_probs: np.ndarray) -> np.ndarray:
    """Log-likelihoods ``[n]`` of a mixture of models, from theirs, ``[M, n]``."""
    top = log_probs.max(axis=0)
    return np.log(weights @ np.exp(log_probs - top)) + top


def _candidates(settings: TableSettings) -> dict[str, list[float]]:
    """The pseudocounts of each model."""
    models = settings.models.split(",")
    for model in models:
        sizes = re.fullmatch(r"[1-9]\d{0,3}x[1-9]\d{0,3}", model)
        if sizes is None and model != _CHOW_LIU:
            raise UserError(
                "--models must be like 1x32,8x16, trees and units, or chow_liu, got "
                f"{model!r}"
            )
    try:
        counts = [float(text) for text in settings.pseudocounts.split(",")]
    except ValueError:
        counts = [-1.0]
    if not min(counts) >= 0:
        raise UserError(
            "--pseudocounts must be numbers of at least 0 with commas, got "
            f"{settings.pseudocounts!r}"
        )
    if _CHOW_LIU in models and not min(counts) > 0:
        raise UserError(
            "--pseudocounts must be greater than 0 with --models=chow_liu (rows must "
            f"be possible), got {settings.pseudocounts!r}"
        )
    return dict.fromkeys(models, counts)


def _study(
    settings: TableSettings, name: str, candidates: Mapping[str, Sequence[float]]
) -> list[dict[str, Any]]:
    """The lines of one table: every model, the best one, the mixture."""
    options = data.Options(debd_name=name)
    table = data.load("debd", settings.data_dir, options)
    lines, outcomes = [], []
    for model, counts in candidates.items():
        start = time.perf_counter()
        trained = train(table, settings, model, counts)
        for count, outcome in zip(counts, trained, strict=True):
            outcomes.append(outcome)
            seconds = time.perf_counter() - start
            lines.append(_line(name, model, count, outcome, seconds))
            summary.write("  ".join(f"{value}" for value in lines[-1].values()) + "\n")
            start = time.perf_counter()
        jax.clear_caches()
    valid, test = (np.stack([getattr(o, k) for o in outcomes]) for k in _PARTS)
    weights = mixture_weights(valid)
    both = Outcome(mixed(weights, valid), mixed(weights, test), 0)
    seconds = sum(line["seconds"] for line in lines)
    lines.append(_line(name, "mixture", "", both, seconds))
    return lines


_PARTS = ("valid", "test")


def _line(name: str, model: str, count: Any, outcome: Outcome, seconds: float):
    means = [round(float(getattr(outcome, k).mean()), 4) for k in _PARTS]
    values = (name, model, count, outcome.num_epochs, *means, round(seconds))
    return dict(zip(_COLUMNS, values, strict=True))


def comparison(lines: Sequence[Mapping[str, Any]]) -> str:
    """Test log-likelihoods of each table, ours and those of others, as Markdown."""
    head = ["", "best tree", "mixture", *PEERS]
    rows = [head, ["---"] * len(head)]
    for name in dict.fromkeys(line["table"] for line in lines):
        own = [line for line in lines if line["table"] == name]
        trees = [line for line in own if line["model"] != "mixture"]
        best = max(trees, key=lambda line: float(line["valid"]))
        (both,) = (line for line in own if line["model"] == "mixture")
        values = [best["test"], both["test"], *PUBLISHED.get(name, ())]
        rows.append([name, *(f"{float(value):.2f}" for value in values)])
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _text(lines: Sequence[Mapping[str, Any]]) -> str:
    rows = [",".join(map(str, (line[c] for c in _COLUMNS))) for line in lines]
    return "\n".join([",".join(_COLUMNS), *rows]) + "\n"


def main(groups: list[Any]) -> int:
    """Trains on every table that is not in the file yet, and shows the comparison."""
    (settings,) = groups
    candidates = _candidates(settings)
    path = Path(settings.workdir) / "results.csv"
    with claim(
        path.parent,
        _PROGRAM,
        flags.by_name(groups),
        flags.free_flags(groups),
        flags.defaults_of(groups),
    ):
        lines = _read(path)
        for name in settings.tables.split(","):
            if all(line["table"] != name for line in lines):
                lines += _study(settings, name, candidates)
                write_atomically(path, _text(lines))
    summary.write(comparison(lines) + f"\n  the results are in {path}\n")
    return 0


parse = app.parser(
    _PROGRAM,
    "Compares hidden Chow-Liu trees on binary tables with published circuits.",
    TableSettings,
    example="--data_dir=~/data/debd --tables=nltcs,plants",
)


def run() -> NoReturn:
    """Runs the program on the command line."""
    app.run(main, parse)


if __name__ == "__main__":
    run()
