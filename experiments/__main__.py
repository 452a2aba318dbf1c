"""``python -m experiments``: the list of programs; with a name, that program."""

from experiments import commands

if __name__ == "__main__":
    commands.run("python -m experiments")
