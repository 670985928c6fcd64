"""Other tools and methods, measured as the run's own schemes are."""
