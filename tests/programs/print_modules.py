"""Set Django up, import the modules that the arguments name, and print which are loaded then."""

import importlib
import sys

from tests.helpers.programs import set_up

if __name__ == "__main__":
    for name in set_up():
        importlib.import_module(name)
    print(*sorted(sys.modules), sep="\n")
