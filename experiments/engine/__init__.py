"""The training loop of all programs, with flags and files; it knows no objective."""
