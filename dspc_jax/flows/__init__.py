"""Invertible maps in front of a circuit.

`flow` is their type, `ladder` the flows themselves (Flax modules, in `coupling`), and
`transformed` the circuit over the features of one.
"""
