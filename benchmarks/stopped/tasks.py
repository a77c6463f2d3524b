"""Its tasks for huey, which finds them here."""

from huey.contrib.djhuey import db_task

from benchmarks.stopped import work

leave = db_task(name="leave")(work.leave)
wait = db_task(name="wait")(work.wait)


def send(how: str, name: str) -> None:
    {"leave": leave, "wait": wait}[how](name)
