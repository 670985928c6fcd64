"""Where a scheme can be shipped to: one file per target, named in `registry`."""
