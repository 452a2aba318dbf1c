"""Speed and memory of the library: ``python -m benchmarks.circuit`` in a clone."""
