"""The one form of the example."""

from collections.abc import Sequence
from typing import Any

from django import forms

from .ai_models import DEFAULT_MODEL


class QuestionForm(forms.Form):
    """What a person asks the AI, which model answers, and how much it may write."""

    LENGTHS = ((150, "Short"), (500, "Medium"), (1500, "Long"))

    question = forms.CharField(
        label="Your question",
        max_length=4000,
        widget=forms.Textarea(attrs={"rows": 3, "placeholder": "Why is the sky blue?"}),
    )
    model = forms.ChoiceField(label="Model", initial=DEFAULT_MODEL)
    # In tokens, which is what the model counts: a token is about four letters.
    max_tokens = forms.TypedChoiceField(label="Length", choices=LENGTHS, coerce=int, initial=500)
    may_look_up = forms.BooleanField(label="May look up what I have spent", required=False)

    def __init__(self, *args: Any, models: Sequence[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["model"].choices = [(name, name) for name in models]
