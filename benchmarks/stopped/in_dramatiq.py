"""Its tasks for dramatiq."""

import django
import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.stopped import work
from benchmarks.stopped.settings import STOPPED

django.setup()

dramatiq.set_broker(RedisBroker(url=STOPPED["redis"], namespace=STOPPED["queue"]))
leave = dramatiq.actor(work.leave, actor_name="leave", max_retries=0)
wait = dramatiq.actor(work.wait, actor_name="wait", max_retries=0)
limit = dramatiq.actor(work.wait, actor_name="limit", max_retries=0, time_limit=work.LIMIT * 1000)


def send(how: str, name: str) -> None:
    {"leave": leave, "wait": wait, "limit": limit}[how].send(name)
