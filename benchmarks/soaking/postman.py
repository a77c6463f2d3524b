"""Quota's webhooks: each event is delivered until it is taken, many of them twice."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import queue
import random
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import urllib3

from benchmarks.soaking.people import HTTP
from benchmarks.soaking.servers import Server

THREADS = 3
#: Seconds until what was not taken is delivered again.
AGAIN = 3


class Postman:
    """Delivers what it is told, to any of the servers."""

    def __init__(self) -> None:
        self.servers: list[Server] = []
        self.events: set[str] = set()
        self.statuses: Counter[int] = Counter()
        self._numbers = itertools.count(1)
        self._waiting: queue.PriorityQueue[tuple[float, int, str]] = queue.PriorityQueue()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._deliver) for _ in range(THREADS)]

    def tell(self, kind: str, data: dict[str, Any]) -> None:
        """Deliver an event soon; three in ten once more, at the same moment or later."""
        event = f"evt_{next(self._numbers)}"
        self.events.add(event)
        now = datetime.now(UTC).isoformat()
        body = json.dumps({"id": event, "type": kind, "created_at": now, "data": data})
        self._put(body, 0)
        if random.random() < 0.3:
            self._put(body, random.choice([0, 0, random.uniform(0, 20)]))

    def _put(self, body: str, delay: float) -> None:
        self._waiting.put((time.time() + delay, next(self._numbers), body))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> int:
        """Deliver what there is, for at most three minutes; how much is left."""
        give_up = time.monotonic() + 180
        while self._waiting.unfinished_tasks and time.monotonic() < give_up:
            time.sleep(0.1)
        self._over.set()
        for thread in self._threads:
            thread.join()
        return self._waiting.unfinished_tasks

    def _deliver(self) -> None:
        while not self._over.is_set():
            try:
                due, _number, body = self._waiting.get(timeout=0.2)
            except queue.Empty:
                continue
            self._over.wait(max(due - time.time(), 0) if due - time.time() < 0.2 else 0.2)
            if due > time.time():
                self._waiting.put((due, next(self._numbers), body))
            elif self._post(body) != 200:
                self._put(body, AGAIN)
            self._waiting.task_done()

    def _post(self, body: str) -> int:
        signature = hmac.new(b"whsec_soak", body.encode(), hashlib.sha256).hexdigest()
        headers = {"X-Quota-Signature": signature, "Content-Type": "application/json"}
        headers["Connection"] = "close"
        url = f"{random.choice(self.servers).origin}/auth/quota/webhook"
        try:
            status = HTTP.request("POST", url, body=body, headers=headers, redirect=False).status
        except urllib3.exceptions.HTTPError:
            status = 0
        self.statuses[status] += 1
        return status
