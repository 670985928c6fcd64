"""Object detection: data, heads, metrics."""
