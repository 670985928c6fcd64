"""TensorRT-RTX: engines built ahead of time on any machine, for GPUs of compute capability 7.5, 8.x and 12.x."""
