"""The one form of the example."""

from django import forms


class QuestionForm(forms.Form):
    """What a person asks the AI."""

    question = forms.CharField(
        label="Your question",
        max_length=4000,
        widget=forms.Textarea(attrs={"rows": 3, "placeholder": "Why is the sky blue?"}),
    )
