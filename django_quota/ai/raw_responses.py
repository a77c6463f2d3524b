"""What `with_raw_response` and `with_streaming_response` return: `parse` raises our errors."""

from typing import Any, TypeVar

from openai import APIResponse, AsyncAPIResponse
from openai._legacy_response import LegacyAPIResponse
from pydantic import BaseModel

from .errors import READING_ERRORS, cause_to_show

T = TypeVar("T")


class RawResponse(LegacyAPIResponse[T]):
    """Of `with_raw_response`, sync and async."""

    def parse(self, *, to: Any = None) -> Any:
        """The SDK's `parse`. It raises ProviderUnavailable if the body is not what it should be."""
        try:
            return require_model(super().parse(to=to), self._cast_to if to is None else to)
        except READING_ERRORS as error:
            raise _translated(self, error) from cause_to_show(error)


class StreamingResponse(APIResponse[T]):
    """Of `with_streaming_response`."""

    def parse(self, *, to: Any = None) -> Any:
        """`RawResponse.parse`."""
        try:
            return require_model(super().parse(to=to), self._cast_to if to is None else to)
        except READING_ERRORS as error:
            raise _translated(self, error) from cause_to_show(error)


class AsyncStreamingResponse(AsyncAPIResponse[T]):
    """Of `with_streaming_response` of async clients."""

    async def parse(self, *, to: Any = None) -> Any:
        """`RawResponse.parse`."""
        try:
            response = await super().parse(to=to)
            return require_model(response, self._cast_to if to is None else to)
        except READING_ERRORS as error:
            raise _translated(self, error) from cause_to_show(error)


_OURS = {
    LegacyAPIResponse: RawResponse,
    APIResponse: StreamingResponse,
    AsyncAPIResponse: AsyncStreamingResponse,
}


def with_our_errors(response: Any) -> Any:
    """Return `response`, whose `parse` raises our errors if it is one of the SDK's raw responses.

    The SDK names these classes in its code, so the object gets another class.
    """
    if ours := _OURS.get(type(response)):
        response.__class__ = ours
    return response


def require_model(response: Any, expected: Any) -> Any:
    """Return `response` if it is the model that the caller expects, else raise ValueError.

    For a page that is not JSON the SDK returns text, and for JSON that is not an object its value.
    """
    is_model = isinstance(expected, type) and issubclass(expected, BaseModel)
    if is_model and isinstance(response, str | int | float | list | None):
        raise ValueError("The response is not a JSON object.")
    return response


def _translated(response: Any, error: Exception) -> Exception:
    translated: Exception = response._client._translate(error)
    return translated
