"""Its jobs for rq."""

import django_rq

from benchmarks.stopped import work
from benchmarks.stopped.settings import STOPPED


def send(how: str, name: str) -> None:
    job = work.leave if how == "leave" else work.wait
    seconds = work.LIMIT if how == "limit" else 60
    django_rq.get_queue(STOPPED["queue"], default_timeout=seconds).enqueue(job, name)
