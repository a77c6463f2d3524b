"""What the page shows of an answer besides its text: the tool's result, and the cost of all calls.

`stream_response` sends the text. Events of another kind, `note`, are put between its own; each has
a piece of HTML, which is the same on a page without JavaScript.
"""

import json
from collections.abc import Iterator

from django.template.loader import render_to_string

from .answers import Answer


def with_notes(events: Iterator[bytes], answer: Answer) -> Iterator[bytes]:
    """`events` of `stream_response`, and the notes on `answer`."""
    has_shown_lookup = False
    for event in events:
        if answer.exchange.lookup and not has_shown_lookup:
            has_shown_lookup = True
            yield _note("lookup", answer)
        yield event
    if answer.exchange.pk:  # some of it has been read, so it is part of the conversation
        yield _note("cost", answer)


def _note(part: str, answer: Answer) -> bytes:
    html = render_to_string(f"chat/{part}.html", {"exchange": answer.exchange})
    data = json.dumps({"part": part, "html": html.strip()})
    return f"event: note\ndata: {data}\n\n".encode()
