"""What a person sees of a program: lines on the terminal, errors in one line."""
