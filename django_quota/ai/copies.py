"""What happens if a framework copies a client."""

from typing import Any, Self


class NeverCopied:
    """Base of the clients. A copy is the client itself, which has no state but its options.

    DSPy copies its model, and so the client in it, for each call. The connection pool of all
    clients cannot be copied.
    """

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self
