"""Intel Neural Compressor as a second opinion, in an environment of its own: its pins exclude the tuner's."""
