"""Trained runs, read back and measured."""
