"""The downward pass: from a key to a sample and its gradient."""
