"""What is trained: circuits and networks as the programs see them."""
