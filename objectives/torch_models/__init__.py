"""PyTorch detectors: checkpoints read safely, exported to ONNX, and mapped onto ONNX layers by their weights."""
