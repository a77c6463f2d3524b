"""The cases of `benchmarks.refresh`."""
