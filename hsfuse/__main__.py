"""`python -m hsfuse`."""

from hsfuse.cli import main

main(prog_name="hsfuse")
