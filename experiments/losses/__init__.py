"""By what it is trained: losses on samples, beside the likelihood."""
