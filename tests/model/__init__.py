"""The renewal of rotating tokens as an explicit-state model: see `engine`, and docs/model.rst."""
