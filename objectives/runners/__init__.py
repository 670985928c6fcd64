"""Runtimes: each activates one artifact, infers batches, and deactivates."""
