"""Import the package alone; print whether that has imported Django."""

import sys

import django_quota  # noqa: F401

if __name__ == "__main__":
    print("django" in sys.modules)
