"""Its tasks for Django's own framework, whose immediate backend runs them where they are sent: here
in a thread of a program that waits for a signal."""

import signal
import sys
import threading

import django
from django.tasks import task

from benchmarks.stopped import work

leave = task(work.leave)
wait = task(work.wait)

if __name__ == "__main__":
    django.setup()
    how, name = sys.argv[1:]
    threading.Thread(target={"leave": leave, "wait": wait}[how].enqueue, args=[name]).start()
    signal.pause()
