"""Other tools' own answers to a run's question, made from its model and images; a file each."""
