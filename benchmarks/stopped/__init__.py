"""The project whose servers and workers benchmarks.stops stops."""
