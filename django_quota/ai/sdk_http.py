"""`httpx`: the HTTP library that the installed OpenAI SDK is built on.

That is `httpx2` since release 3 of the SDK, and `httpx` before. Both have the same names, but an
SDK built on one does not understand the requests, errors and auth classes of the other. This is the
only module that distinguishes the releases of the SDK.

Importing it raises ModuleNotFoundError if the SDK is not installed, and ConfigurationError if its
release is not supported.
"""

import importlib.metadata
import re
from typing import TYPE_CHECKING

from django_quota.exceptions import ConfigurationError

__all__ = ["httpx"]

#: The same range as the extra `ai` in pyproject.toml. Before 2.34 the SDK asks for the key in
#: another way; release 4 may drop private names that tests/ai/test_sdk_names.py lists.
SUPPORTED = ">=2.34,<4"


def _release() -> tuple[int, ...]:
    """The major and minor release of the installed SDK."""
    try:
        version = importlib.metadata.version("openai")
    except importlib.metadata.PackageNotFoundError as error:
        raise ModuleNotFoundError("The OpenAI SDK is not installed.", name="openai") from error
    release = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if not (2, 34) <= release < (4,):
        raise ConfigurationError(
            f"openai {version} is installed, but AI calls need openai{SUPPORTED}. "
            f'Install a supported release: pip install "openai{SUPPORTED}".'
        )
    return release


_installed = _release()

if TYPE_CHECKING or _installed >= (3,):
    import httpx2 as httpx
else:
    import httpx
