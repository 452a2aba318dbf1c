"""``python -m experiments.study``."""

from experiments import study

if __name__ == "__main__":
    study.run()
