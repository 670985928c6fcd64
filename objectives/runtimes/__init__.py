"""The runtimes that a scheme can be deployed on; everything that knows one lies in its folder."""

#: Where a study or a command names none; it runs everywhere, and scores for comparison run on it.
DEFAULT_RUNTIME = "onnxruntime-cpu"
