"""The type of secrets in memory, between Quota's reply and the encrypted column."""

from typing import NoReturn


class Secret(str):
    """A `str` whose repr hides it from tracebacks, logs and error trackers.

    `str()`, formatting and JSON still give the secret, for use in a header. It cannot be pickled,
    so that no cache, session or task queue stores it.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "<secret>"

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, memo: object) -> "Secret":
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "A secret cannot be pickled. Pass the user instead, and call get_access_token where "
            "the token is used."
        )
