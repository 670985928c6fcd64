"""Words, bars and signals of the terminal."""
