"""An app in which django-pghistory keeps each state of a token row, by a trigger."""
