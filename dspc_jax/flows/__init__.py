"""Invertible maps in front of a circuit.

`flow` defines their type, `ladder` the flows themselves (from the Flax modules of
`coupling`), and `transformed` a circuit over the features of a flow.
"""
