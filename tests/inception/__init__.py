"""Tests of the Inception network."""
