"""Tests of `experiments.data`."""
