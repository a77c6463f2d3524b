"""The text that the sandbox answers with instead of calling a model, and its tokens."""

from __future__ import annotations

import math
import re

__all__ = ["compose_answer", "count_tokens", "split_into_tokens"]

MAX_QUOTED_CHARACTERS = 160


def compose_answer(question: str) -> str:
    """Return an answer that quotes the question, to show that it arrived."""
    quoted = " ".join(question.split())
    if len(quoted) > MAX_QUOTED_CHARACTERS:
        quoted = quoted[: MAX_QUOTED_CHARACTERS - 1].rstrip() + "…"
    if not quoted:
        return "Hello! Ask me anything; this sandbox answers without calling a real model."
    if re.match(r"(?i)(hi|hello|hey|good (morning|evening))\b", quoted):
        opening = "Hello, and welcome!"
    elif quoted.endswith("?"):
        opening = "Good question."
    else:
        opening = "Thanks, got it."
    return (
        f"{opening} You wrote: “{quoted}”\n\n"
        "Here is how I would go about it. First, say in one sentence what a good result looks "
        "like. Then take the smallest step that shows whether you are on the right track, and "
        "look at what you learn before you take the next one. Most of the time that is quicker "
        "than a perfect plan.\n\n"
        "This is a canned answer from the local Quota sandbox: no real model was called. The "
        "charge is real: your sandbox wallet paid for this answer."
    )


def count_tokens(text: str) -> int:
    """Return an estimate of the tokens in a text: one for every four characters."""
    return math.ceil(len(text) / 4)


def split_into_tokens(text: str) -> list[str]:
    """Split a text into pieces of up to eight letters, each of which counts as one token."""
    return re.findall(r"\s*\S{1,8}", text)
