"""The recipes of docs/frameworks.rst, one for each framework.

Each has `ask(user, question)`, or `aask(user, question)` for async code, or both.
"""
