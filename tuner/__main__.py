"""Lets ``python -m tuner`` stand for ``tuner``."""

from tuner.cli import main

if __name__ == "__main__":
    main()
