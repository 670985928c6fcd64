"""How the outputs of each family of detectors are recognised and decoded."""
