"""The upward pass and the queries that it answers."""
