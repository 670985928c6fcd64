"""Replayed scores: a runtime without hardware, for tests, demonstrations and sampler benchmarks."""
