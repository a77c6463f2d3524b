"""A project's app that has a history kept of our model."""
