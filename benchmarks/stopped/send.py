"""`python -m benchmarks.stopped.send WORKER leave|wait|limit USER` sends a task to a worker."""

import sys
from importlib import import_module

import django

if __name__ == "__main__":
    django.setup()
    module, how, name = sys.argv[1:]
    import_module(module).send(how, name)
