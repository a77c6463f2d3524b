"""The recipes of docs/frameworks.rst with the real frameworks; `tox -e frameworks`.

Some frameworks pin the OpenAI SDK to release 2, so they have an environment of their own:
`tox -e frameworks-openai2`. Each runs the recipes whose framework is installed there.
"""
