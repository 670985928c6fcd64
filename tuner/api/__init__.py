"""What a Python program asks of tuner, and the command line too: studies, runs, single models."""
