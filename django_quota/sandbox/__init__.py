"""A complete local Quota (OpenID Connect provider, wallets and models) with its own database.

Start it with ``python -m django_quota.sandbox`` or ``manage.py quota_sandbox``. It shares no code
with the rest of ``django_quota`` and is only used over HTTP. If the two shared code, a mistake in
it would be on both sides, and no test would find it.
"""
