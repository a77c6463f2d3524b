"""Prices of the AI models, in credits per token."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PRICES", "Price", "get_price"]


@dataclass(frozen=True)
class Price:
    """The price of one token, in integer credits. One credit is 0.000001 USD."""

    prompt: int
    completion: int


PRICES = {
    "gpt-4o-mini": Price(5, 20),
    "gpt-4o": Price(15, 60),
    "anthropic/claude-sonnet-4": Price(20, 80),
    "google/gemini-2.0-flash": Price(4, 16),
}
#: The price of every other model: the sandbox accepts any model name that a project uses.
DEFAULT_PRICE = Price(5, 20)


def get_price(model: str) -> Price:
    """Return the price of a model, which may be named with the prefix ``openai/``."""
    return PRICES.get(model.removeprefix("openai/"), DEFAULT_PRICE)
