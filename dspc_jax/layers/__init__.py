"""The layers of a circuit on folded arrays, examples on the last axis."""
