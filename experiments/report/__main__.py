"""``python -m experiments.report``."""

from experiments.report import run

run()
