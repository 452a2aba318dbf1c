"""Lines on the terminal: results and errors."""
