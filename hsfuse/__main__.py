"""`python -m hsfuse`."""

from hsfuse.cli import run

if __name__ == "__main__":
    run()
