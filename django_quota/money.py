"""Credits and dollars: 1,000,000 credits are one US dollar (quota-protocol section 11).

The package calculates with whole credits (int). Amounts that people see are Decimal, never float.
All of them are written here: `format_usd` for pages, `format_exact_usd` for the `title` of each
and where a person confirms an amount.
"""

from decimal import Context, Decimal

CREDITS_PER_DOLLAR = 1_000_000
#: Credits in a cent, and in the smallest amount that `format_usd` shows.
_CENT, _TEN_THOUSANDTH = 10_000, 100
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
    """Return `credits` as "$1.00", rounded to the nearest amount that people can read at a glance.

    A dollar and more has two decimals. Less has two or four, because most calls cost less than a
    cent. Less than a ten-thousandth is not shown as nothing.

    >>> format_usd(1_234_567_890), format_usd(998_800), format_usd(4_213), format_usd(-50_000)
    ('$1,234.57', '$0.9988', '$0.0042', '-$0.05')
    >>> format_usd(12), format_usd(-12), format_usd(0)
    ('<$0.0001', '-<$0.0001', '$0.00')
    """
    size, sign = abs(credits), "-" if credits < 0 else ""
    if 0 < size < _TEN_THOUSANDTH:
        return f"{sign}<$0.0001"
    step = _TEN_THOUSANDTH if size < CREDITS_PER_DOLLAR else _CENT
    rounded = (size + step // 2) // step * step
    decimals = 4 if rounded % _CENT else 2
    return f"{sign}${dollars(rounded):,.{decimals}f}"


def format_exact_usd(credits: int) -> str:
    """Return `credits` as "$1.00", exactly: with two decimals, or up to six if the amount has them.

    >>> format_exact_usd(1_000_000), format_exact_usd(1_234_000_001), format_exact_usd(-50_000)
    ('$1.00', '$1,234.000001', '-$0.05')
    """
    whole, credits_left = divmod(abs(credits), CREDITS_PER_DOLLAR)
    decimals = f"{credits_left:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if credits < 0 else ''}${whole:,}.{decimals}"
