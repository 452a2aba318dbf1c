"""A classifier of the data set: ``python -m experiments.classifier --dataset=digits``.

Its features measure samples in `experiments.evaluate`.
"""

from experiments.engine.flags import Settings
from experiments.engine.program import training_program
from experiments.engine.uses import OF_DETAILS, OF_LIKELIHOODS, OF_SAMPLES, OF_SIZES
from experiments.models.classifier import ClassifierSettings, make_system

PROGRAM = training_program(
    "experiments.classifier",
    "Trains a classifier, whose features measure samples in experiments.evaluate.",
    make_system,
    Settings,
    ClassifierSettings,
    defaults={"learning_rate": 1e-3, "num_steps": 2000},
    without=(*OF_LIKELIHOODS, *OF_SAMPLES, *OF_SIZES, *OF_DETAILS),
    example="--dataset=digits --workdir=out/classifier-digits",
)
parse, main, run = PROGRAM.parse, PROGRAM.main, PROGRAM.run

if __name__ == "__main__":
    run()
