"""Benchmarks of paglets: every figure beside its physical floor, measured in the same run."""
