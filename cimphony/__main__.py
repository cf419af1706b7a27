"""`python -m cimphony` is the command line."""

from cimphony.cli import main

main()
