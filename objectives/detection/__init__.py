"""Detection: the input contract, heads, datasets and scoring."""
