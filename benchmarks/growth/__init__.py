"""How this package grows, with hand-written code beside it, on PostgreSQL.

`python -m benchmarks.growth` measures sign-ins with more gunicorn workers, token reads among more
rows, streams beside more waiting ones, and renewals with more processes. The contestants are
`floor` and `django_quota` of benchmarks.sign_in, and for the streams a bare proxy in the same
project. All that is compared runs at once and takes turns, in an order that is drawn again for each
round, so that whatever else the machine does happens to all of it.
"""
