"""What the modules for AI frameworks share."""

from collections.abc import Iterator
from contextlib import contextmanager

from django_quota.exceptions import ConfigurationError

#: The key of clients that are never used: without one, a framework looks for the developer's.
UNUSED_KEY = "unused"


@contextmanager
def requires(package: str) -> Iterator[None]:
    """Raise ConfigurationError if the imports in the block fail, as `package` is not installed."""
    try:
        yield
    except ImportError as error:
        raise ConfigurationError(f"This model needs {package}: pip install {package}") from error
