"""TensorRT on one GPU: rules by version, placement, builder, engines."""
