"""The version, as package and run manifests name it."""

__version__ = "0.1.0"
