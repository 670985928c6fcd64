"""Refinement: one scheme's numbers learnt against the unquantized model itself, without labels."""
