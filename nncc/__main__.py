"""``python -m nncc``: the command line."""

from nncc.cli import main

main()
