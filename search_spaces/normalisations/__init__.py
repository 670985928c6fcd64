"""Brings models of any exporter into one form, one module per difference; `onnx_file` calls them in order."""
