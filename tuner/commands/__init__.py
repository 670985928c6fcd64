"""Commands of the terminal, one module per family."""
