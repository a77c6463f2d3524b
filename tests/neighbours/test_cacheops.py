"""django-cacheops keeps rows in Redis; TEST_REDIS_URL says where that is."""

import os

import pytest

from tests.neighbours import run
from tests.sandbox_client import Sandbox

pytest.importorskip("cacheops")
redis = pytest.importorskip("redis")
pytestmark = pytest.mark.neighbour

REDIS = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379/9")


def test_redis_holds_no_clear_secret_and_no_old_row(sandbox: Sandbox) -> None:
    try:
        redis.Redis.from_url(REDIS, socket_timeout=5).ping()
    except redis.RedisError:
        pytest.skip(f"there is no Redis at {REDIS}")
    seen = run("cacheops", sandbox=sandbox, REDIS=REDIS)

    assert seen["waited"] == 0
    assert seen["kept"] > 0
    assert seen["clear"] == 0
