"""Objectives compared on two-dimensional sets."""
