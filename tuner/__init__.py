"""The search and the terminal."""

__version__ = "0.1.0"
