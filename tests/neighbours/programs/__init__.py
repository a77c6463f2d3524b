"""One program for each neighbour; see `tests.neighbours`."""
