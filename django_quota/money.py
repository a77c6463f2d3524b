"""Credits and dollars: 1,000,000 credits are one US dollar (quota-protocol section 11).

Inside, money is a whole number of credits; only for people is it a Decimal, and never a float.
"""

from decimal import Context, Decimal

__all__ = ["CREDITS_PER_DOLLAR", "dollars", "format_usd", "whole_number"]

CREDITS_PER_DOLLAR = 1_000_000
#: Not the project's own decimal context, which may round.
_EXACT = Context(prec=40)


def whole_number(value: object) -> int | None:
    """`value`, from the network, if it is a whole number that fits into a column (64 bits)."""
    return value if type(value) is int and abs(value) < 1 << 63 else None


def dollars(credits: int) -> Decimal:
    """`credits` (int, may be negative) in US dollars, exactly."""
    return Decimal(credits).scaleb(-6, _EXACT)


def format_usd(credits: int) -> str:
    """`credits` as "$1.00": to the cent, or as exactly as the credits are where they are finer.

    >>> format_usd(1_000_000), format_usd(998_800), format_usd(-50_000), format_usd(1_234_000_001)
    ('$1.00', '$0.9988', '-$0.05', '$1,234.000001')
    """
    whole, credits_left = divmod(abs(credits), CREDITS_PER_DOLLAR)
    decimals = f"{credits_left:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if credits < 0 else ''}${whole:,}.{decimals}"
