"""A whole local Quota: provider, wallet and models, in a process and a database of its own.

Start it with ``python -m django_quota.sandbox`` (or ``manage.py quota_sandbox``). It shares no
code with the rest of ``django_quota``: the two meet over HTTP only, so that a mistake in one is
not repeated, and thereby hidden, in the other.
"""
