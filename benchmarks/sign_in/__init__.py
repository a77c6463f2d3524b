"""A sign-in with this package, with its peers and with hand-written code, side by side.

`python -m benchmarks.sign_in`, or `tox run -e bench`, which installs the peers. Each contestant is
a Django project in a process of its own (`contestant`), with a database of its own; one process is
the provider (`provider`); this one is the browser (`run`). The contestants take turns in an order
that is drawn again for each round, so that whatever else the machine does happens to all of them.
Then those that renew tokens take their turns in a storm of callers whose token has expired
(`storm`), where each is a crew of such processes.
"""
