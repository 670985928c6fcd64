"""One loaded model that infers: the protocol, and ONNX Runtime, in which we compute ourselves too."""
