"""OpenVINO, on a CPU and on whatever other device its installed plugins answer for."""
