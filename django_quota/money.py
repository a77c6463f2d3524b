"""Credits and dollars: 1,000,000 credits are one US dollar (quota-protocol section 11).

The package calculates with whole credits (int). Amounts that people see are Decimal, never float.
"""

from decimal import Context, Decimal

CREDITS_PER_DOLLAR = 1_000_000
#: A context of our own, because the project's decimal context may round.
_EXACT = Context(prec=40)


def whole_number(value: object) -> int | None:
    """Return `value`, which comes from the network, if it is an int of at most 64 bits."""
    return value if type(value) is int and abs(value) < 1 << 63 else None


def dollars(credits: int) -> Decimal:
    """Return `credits` (int, may be negative) in US dollars, exactly."""
    return Decimal(credits).scaleb(-6, _EXACT)


def credits_of(amount: Decimal) -> int:
    """Return US dollars in credits. `amount` has at most six decimals, else it is cut."""
    return int(amount.scaleb(6, _EXACT))


def format_usd(credits: int) -> str:
    """Return `credits` as "$1.00": with two decimals, or up to six where the amount has them.

    >>> format_usd(1_000_000), format_usd(998_800), format_usd(-50_000), format_usd(1_234_000_001)
    ('$1.00', '$0.9988', '-$0.05', '$1,234.000001')
    """
    whole, credits_left = divmod(abs(credits), CREDITS_PER_DOLLAR)
    decimals = f"{credits_left:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if credits < 0 else ''}${whole:,}.{decimals}"
