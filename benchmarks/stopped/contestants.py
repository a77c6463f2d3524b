"""Who is stopped, and how."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from functools import partial

#: What happens in the process, and how the table says it.
LEAVE, WAIT, ASYNC_WAIT, LIMIT = "leave", "wait", "async_wait", "limit"
SAID = {
    LEAVE: "a page has not waited",
    WAIT: "somebody waits",
    ASYNC_WAIT: "a coroutine waits",
    LIMIT: "a time limit ends the wait",
}


@dataclass(frozen=True)
class Contestant:
    """A server or a worker."""

    name: str
    #: The package whose version is shown, and what else it needs.
    packages: tuple[str, ...]
    command: str
    situations: tuple[str, ...] = (LEAVE, WAIT)
    #: The module that sends its tasks; a server has pages.
    sender: str = ""
    apps: tuple[str, ...] = ()
    stop: signal.Signals = signal.SIGTERM
    #: Does the main process end at that signal?
    ends: bool = True
    #: Situations in which nothing can be hooked: docs/deployment.rst says what a site does.
    lost: tuple[str, ...] = ()


GUNICORN = "gunicorn --bind 127.0.0.1:{port} --workers 1 --worker-class"
UVICORN = "uvicorn --port {port} benchmarks.stopped.asgi:application"
GRANIAN = "granian --port {port} --workers 1 --interface"
UWSGI = "uwsgi --http-socket 127.0.0.1:{port} --master --processes 1 --threads 4 --need-app"
CELERY = "celery -A benchmarks.stopped.in_celery worker --concurrency 1"
RQ = "python -m django rqworker {queue}"
WSGI, ASGI = "benchmarks.stopped.wsgi:application", "benchmarks.stopped.asgi:application"

server = partial(Contestant, situations=(LEAVE, WAIT))
async_server = partial(Contestant, situations=(LEAVE, ASYNC_WAIT))
celery = partial(
    Contestant, packages=("celery", "redis", "gevent"), sender="benchmarks.stopped.in_celery"
)
rq = partial(
    Contestant,
    packages=("rq", "django-rq"),
    situations=(LEAVE, WAIT, LIMIT),
    sender="benchmarks.stopped.in_rq",
    apps=("django_rq",),
)
huey = partial(
    Contestant,
    packages=("huey", "redis"),
    sender="benchmarks.stopped.tasks",
    apps=("huey.contrib.djhuey",),
)

CONTESTANTS = [
    server("gunicorn sync", ("gunicorn",), f"{GUNICORN} sync {WSGI}"),
    server("gunicorn gthread", ("gunicorn",), f"{GUNICORN} gthread --threads 4 {WSGI}"),
    server("gunicorn gevent", ("gunicorn", "gevent"), f"{GUNICORN} gevent {WSGI}"),
    async_server("gunicorn asgi", ("gunicorn",), f"{GUNICORN} asgi {ASGI}"),
    async_server(
        "gunicorn uvicorn_worker",
        ("gunicorn", "uvicorn-worker"),
        f"{GUNICORN} uvicorn_worker.UvicornWorker {ASGI}",
    ),
    async_server("uvicorn", ("uvicorn",), UVICORN),
    async_server("uvicorn --workers 2", ("uvicorn",), f"{UVICORN} --workers 2"),
    async_server("hypercorn", ("hypercorn",), f"hypercorn --bind 127.0.0.1:{{port}} {ASGI}"),
    async_server("daphne", ("daphne",), f"daphne --port {{port}} {ASGI}"),
    server("granian wsgi", ("granian",), f"{GRANIAN} wsgi {WSGI}"),
    async_server("granian asgi", ("granian",), f"{GRANIAN} asgi {ASGI}"),
    server("waitress", ("waitress",), f"waitress-serve --listen 127.0.0.1:{{port}} {WSGI}"),
    server("uWSGI", ("uwsgi",), f"{UWSGI} --module {WSGI}", ends=False, lost=(WAIT,)),
    server(
        "uWSGI reloaded by SIGHUP",
        ("uwsgi",),
        f"{UWSGI} --module {WSGI}",
        stop=signal.SIGHUP,
        ends=False,
    ),
    server(
        "uWSGI --die-on-term",
        ("uwsgi",),
        f"{UWSGI} --module {WSGI} --die-on-term",
        lost=(LEAVE, WAIT),
    ),
    server(
        "uWSGI gracefully_kill_them_all",
        ("uwsgi",),
        f"{UWSGI} --module {WSGI} --hook-master-start 'unix_signal:15 gracefully_kill_them_all'",
    ),
    celery("Celery prefork", command=f"{CELERY} --pool prefork", situations=(LEAVE, WAIT, LIMIT)),
    celery("Celery gevent", command=f"{CELERY} --pool gevent"),
    celery("Celery threads", command=f"{CELERY} --pool threads"),
    rq("rq", command=RQ, lost=(LEAVE,)),
    rq("rq SimpleWorker", command=f"{RQ} --worker-class rq.SimpleWorker"),
    huey("huey threads", command="python -m django run_huey --workers 1"),
    huey("huey processes", command="python -m django run_huey --workers 1 --worker-type process"),
    Contestant(
        "dramatiq",
        ("dramatiq", "redis"),
        "dramatiq benchmarks.stopped.in_dramatiq --processes 1 --threads 2",
        situations=(LEAVE, WAIT, LIMIT),
        sender="benchmarks.stopped.in_dramatiq",
    ),
    Contestant(
        "Django's tasks, immediate",
        ("django",),
        "python -m benchmarks.stopped.in_django {how} {user}",
    ),
]
