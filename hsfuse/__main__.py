"""`python -m hsfuse`."""

from hsfuse.cli import main

if __name__ == "__main__":
    main(prog_name="hsfuse")
