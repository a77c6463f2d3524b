"""A local Quota and the example project, ready to click: `python tools/demo/demo.py`.

With `--once` it runs the whole journey over HTTP instead, and says what it checked.
"""

import argparse
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import requests
from dotenv import dotenv_values
from journey import JourneyFailed, journey

MANAGE = Path(__file__).resolve().parents[2] / "example_project" / "manage.py"
PATIENCE = 60  # seconds for a process to start serving
DEVELOPER = {"email": "developer@example.com", "password": "quota-demo"}
BANNER = """
  The example project   {demo.app_url}
  Its admin             {demo.app_url}/admin/   admin / quota-demo
  The local Quota       {demo.quota_url}/sandbox

  Sign in as            ada@example.com     with credits
                        grace@example.com   with many credits
                        bob@example.com     with none
  Password of all       quota-demo

  Ctrl-C stops both. Data and logs are kept in {demo.data}
"""


class DemoFailed(Exception):
    """The demo cannot go on; the message says why."""


@dataclass(frozen=True)
class Child:
    """A process of the demo, its output in a file."""

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def require_alive(self) -> None:
        """Raise DemoFailed if it has ended."""
        if self.process.poll() is not None:
            last = self.log.read_text(errors="replace").strip().rpartition("\n")[2]
            raise DemoFailed(
                f"{self.name} has stopped (exit code {self.process.returncode}). "
                f"The last line of {self.log}: {last or 'nothing'}"
            )

    def wait_until(self, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not ready():
            self.require_alive()
            if time.monotonic() > end:
                raise DemoFailed(f"{self.name} did not start in {PATIENCE} s; see {self.log}")
            time.sleep(0.1)


@dataclass(frozen=True)
class Demo:
    """Where everything is."""

    data: Path
    port: int
    quota_port: int

    @property
    def app_url(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def quota_url(self) -> str:
        return f"http://127.0.0.1:{self.quota_port}"

    @property
    def env_file(self) -> Path:
        return self.data / ".env"

    @property
    def quota_database(self) -> Path:
        return self.data / "quota.sqlite3"

    @property
    def app_database(self) -> Path:
        return self.data / "example.sqlite3"

    def environment(self) -> dict[str, str]:
        """This process's environment, without what would point the example at another Quota."""
        ours = ("QUOTA_", "EXAMPLE_", "SESSION_SECRET", "FIELD_ENCRYPTION_KEY", "DJANGO_")
        return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | {
            "EXAMPLE_ENV_FILE": str(self.env_file),
            "EXAMPLE_DATABASE": str(self.app_database),
            "QUOTA_BASE_URL": self.quota_url,
            "QUOTA_TOPUP_URL": f"{self.quota_url}/sandbox",
            "PYTHONUNBUFFERED": "1",
        }

    def manage(self, *arguments: str, **environment: str) -> None:
        """Run one command of manage.py to its end."""
        done = subprocess.run(
            [sys.executable, MANAGE, *arguments],
            env=self.environment() | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise DemoFailed(f"manage.py {arguments[0]} failed: {done.stderr.strip()}")

    def start(self, stack: ExitStack, name: str, *command: str | Path) -> Child:
        """Run Python with these arguments, a server that goes on until `stack` is closed."""
        log = self.data / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *command],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C reaches only us; we stop the children in order.
                start_new_session=True,
            )
        child = Child(name, process, log)
        stack.callback(child.stop)
        return child

    def require_free_ports(self) -> None:
        for option, port in (("--port", self.port), ("--quota-port", self.quota_port)):
            try:
                socket.create_connection(("localhost", port), timeout=1).close()
            except OSError:
                continue
            raise DemoFailed(f"Port {port} is in use. Choose another one with {option}.")

    def start_quota(self, stack: ExitStack) -> Child:
        arguments = ("--port", str(self.quota_port), "--data", str(self.quota_database))
        quota = self.start(stack, "quota", "-m", "django_quota.sandbox", *arguments)
        quota.wait_until(lambda: "Quota sandbox ready at" in quota.log.read_text(errors="replace"))
        return quota

    def session_token(self) -> str:
        """A developer's session at the local Quota, whose account is made if it is new."""
        for path in ("/auth/register", "/auth/login"):
            reply = requests.post(self.quota_url + path, json=DEVELOPER, timeout=30)
            if reply.ok:
                return str(reply.json()["session_token"])
        raise DemoFailed(f"The local Quota refused the developer's login: HTTP {reply.status_code}")

    def register_app(self, known_client_id: str | None) -> None:
        """Register the example at the local Quota, or bring what is registered up to date."""
        arguments = ["--name", "Inkwell", "--env-file", str(self.env_file)]
        for host in ("localhost", "127.0.0.1"):
            arguments += ["--redirect-uri", f"http://{host}:{self.port}/auth/quota/callback"]
            arguments += ["--post-logout-uri", f"http://{host}:{self.port}/"]
        if known_client_id:
            arguments += ["--client-id", known_client_id]
        self.manage("quota_register_app", *arguments, QUOTA_SESSION_TOKEN=self.session_token())

    def make_admin(self) -> None:
        try:
            self.manage(
                "createsuperuser",
                "--noinput",
                DJANGO_SUPERUSER_USERNAME="admin",
                DJANGO_SUPERUSER_EMAIL="admin@example.com",
                DJANGO_SUPERUSER_PASSWORD="quota-demo",
            )
        except DemoFailed as error:
            if "already taken" not in str(error):
                raise

    def start_example(self, stack: ExitStack) -> Child:
        address = f"127.0.0.1:{self.port}"
        example = self.start(stack, "example", MANAGE, "runserver", "--noreload", address)
        example.wait_until(lambda: answers(self.app_url))
        return example

    def run(self, *, once: bool) -> None:
        """Start everything; then the journey, or serve until interrupted or a process dies."""
        self.require_free_ports()
        # It will hold secrets: nobody else on this machine may read it.
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        client_id = None
        if self.quota_database.exists():
            client_id = dotenv_values(self.env_file).get("QUOTA_CLIENT_ID")
        with ExitStack() as stack:
            quota = self.start_quota(stack)
            self.register_app(client_id)
            self.manage("migrate", "--verbosity", "0")
            self.make_admin()
            example = self.start_example(stack)
            if once:
                try:
                    journey(self.app_url, self.quota_url, self.app_database)
                except JourneyFailed:
                    # If a process has ended, that is the cause, and its log says more. A process
                    # that is killed closes its connections a moment before it has ended.
                    watch(quota, example, seconds=5)
                    raise
                return
            print(BANNER.format(demo=self), flush=True)
            watch(quota, example)


def watch(*children: Child, seconds: float = math.inf) -> None:
    """Raise DemoFailed as soon as one of them has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for child in children:
            child.require_alive()
        time.sleep(0.1)


def answers(url: str) -> bool:
    """Does a server answer at `url`?"""
    try:
        requests.get(url, timeout=5)
    except requests.RequestException:
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--once", action="store_true", help="run the journey, then stop")
    parser.add_argument("--port", type=int, default=5280, help="of the example (5280)")
    parser.add_argument("--quota-port", type=int, default=5281, help="of the local Quota (5281)")
    parser.add_argument("--data-dir", type=Path, default=Path(".demo"), help="data, logs (.demo)")
    options = parser.parse_args()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # SIGHUP: not on Windows
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)
    try:
        Demo(options.data_dir.resolve(), options.port, options.quota_port).run(once=options.once)
    except (DemoFailed, JourneyFailed) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130 if options.once else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
