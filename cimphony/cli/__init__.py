"""The command line: typed functions as commands; what they do is in the library."""

from cimphony.cli.app import app, main

__all__ = ["app", "main"]
