"""Its tasks for Celery."""

from celery import Celery

from benchmarks.stopped import work
from benchmarks.stopped.settings import STOPPED

app = Celery("stopped", broker=STOPPED["redis"])
app.conf.broker_transport_options = {"global_keyprefix": STOPPED["queue"]}
app.conf.task_ignore_result = True

leave = app.task(work.leave, name="leave")
wait = app.task(work.wait, name="wait")
limit = app.task(work.wait, name="limit", soft_time_limit=work.LIMIT)


def send(how: str, name: str) -> None:
    {"leave": leave, "wait": wait, "limit": limit}[how].delay(name)
