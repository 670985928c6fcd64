"""ONNX Runtime, on a CPU and on CUDA."""
