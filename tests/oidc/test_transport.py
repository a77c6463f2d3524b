"""django_quota.transport: one exchange over real sockets, with a server that may do anything."""

from __future__ import annotations

import dataclasses
import gzip
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import Settings as ProjectSettings
from requests.structures import CaseInsensitiveDict

from django_quota.exceptions import (
    InsufficientCredits,
    InsufficientScope,
    ProviderUnavailable,
    QuotaError,
    RateLimited,
    RequestRefused,
)
from django_quota.oidc import bounded_http, time_limit, transport
from django_quota.oidc.time_limit import within
from django_quota.oidc.transport import (
    MAX_REPLY_BYTES,
    Reply,
    call_api,
    retry_after,
    send_request,
)
from tests.helpers import programs
from tests.helpers.certificates import certificate
from tests.helpers.concurrency import wait_until
from tests.shown import shown
from tests.tiny_server import (
    HANG_UP,
    Answer,
    Answering,
    LiveAnswer,
    Seen,
    TinyServer,
    answer,
    json_answer,
)

BEARER = "quota_token_hush"
FORM = {"refresh_token": "quota_refresh_hush", "client_secret": "quota_secret_hush"}

#: Seconds after which a reply comes that nobody should wait for any more. A test takes so long only
#: if the code is wrong.
TOO_LATE = 10
#: A limit on the clock of the test, longer than TOO_LATE.
LIMIT = 30
#: What the tests leave of a limit, for a silence to end in real time.
REST = 0.2


@pytest.fixture
def server() -> Iterator[TinyServer]:
    with TinyServer() as running:
        yield running
    # Sockets kept by the session would be found unclosed by another test.
    transport._session().close()


class Clock:
    """The clock of the limits. Only `forward` moves it, so a slow machine uses up no limit."""

    def __init__(self) -> None:
        self.now = 1000.0

    def forward(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, settings: ProjectSettings) -> Clock:
    made = Clock()
    for module in (bounded_http, time_limit):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: made.now))
    settings.QUOTA_DEADLINE = LIMIT
    # The read time-out is in real time. It is longer, so that it does not hide a missing limit.
    settings.QUOTA_TIMEOUT = (5, 2 * LIMIT)
    return made


class Dripping(LiveAnswer):
    """Sends `head` at once and `rest` byte by byte, while `clock` passes LIMIT. The last byte comes
    only if the other side still waits for it long after that."""

    def __init__(self, clock: Clock, head: bytes, rest: bytes) -> None:
        super().__init__(head)
        self._clock = clock
        self._rest = rest

    def send(self, sock: socket.socket) -> None:
        sock.sendall(self._head)
        count = len(self._rest) - 1
        for at in range(count):
            self._clock.forward(1.5 * LIMIT / count)
            sock.sendall(self._rest[at : at + 1])
        sock.settimeout(TOO_LATE)
        try:
            sock.recv(1)  # until the other side hangs up
        except TimeoutError:
            sock.sendall(self._rest[-1:])


def failure(method: str, url: str, **options: Any) -> ProviderUnavailable:
    with pytest.raises(ProviderUnavailable) as raised:
        send_request(method, url, **options)
    return raised.value


def reply(status: int = 200, body: Any = None, **headers: str) -> Reply:
    named = CaseInsensitiveDict({k.replace("_", "-"): v for k, v in headers.items()})
    return Reply(status=status, headers=named, json=body)


class TestRequest:
    def test_with_a_form(self, server: TinyServer) -> None:
        server.on("/token", json_answer({"a": 1}))

        send_request("POST", f"{server.origin}/token", form={"code": "a b&c=d", "state": "ü"})

        (seen,) = server.requests
        assert (seen.method, seen.target) == ("POST", "/token")
        assert seen.headers["content-type"] == "application/x-www-form-urlencoded"
        assert seen.body == b"code=a+b%26c%3Dd&state=%C3%BC"

    def test_with_json(self, server: TinyServer) -> None:
        server.on("/apps", json_answer({"a": 1}))

        send_request("PATCH", f"{server.origin}/apps", json_body={"name": "Ada"})

        (seen,) = server.requests
        assert (seen.method, seen.headers["content-type"]) == ("PATCH", "application/json")
        assert json.loads(seen.body) == {"name": "Ada"}

    def test_names_itself_and_asks_for_json(self, server: TinyServer) -> None:
        send_request("GET", f"{server.origin}/")

        headers = server.requests[0].headers
        assert (headers["accept"], headers["user-agent"]) == ("application/json", "django-quota")

    def test_carries_the_bearer_to_the_letter(self, server: TinyServer) -> None:
        send_request("GET", f"{server.origin}/", bearer=BEARER)

        assert server.requests[0].headers["authorization"] == f"Bearer {BEARER}"

    def test_without_a_bearer_carries_no_authorization(self, server: TinyServer) -> None:
        send_request("GET", f"{server.origin}/")

        assert "authorization" not in server.requests[0].headers

    @pytest.mark.parametrize("bearer", [None, BEARER])
    def test_does_not_look_the_host_up_in_netrc(
        self,
        bearer: str | None,
        server: TinyServer,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        netrc = tmp_path / ".netrc"
        netrc.write_text("machine 127.0.0.1 login somebody password else\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NETRC", str(netrc))

        send_request("GET", f"{server.origin}/", bearer=bearer)

        expected = None if bearer is None else f"Bearer {bearer}"
        assert server.requests[0].headers.get("authorization") == expected

    def test_does_not_bring_cookies_back(self, server: TinyServer) -> None:
        server.on("/", json_answer({}, Set_Cookie="quota_session=somebody; Path=/"))

        send_request("GET", f"{server.origin}/")
        send_request("GET", f"{server.origin}/")

        assert len(server.requests) == 2
        assert "cookie" not in server.requests[1].headers

    def test_keeps_its_connection(self, server: TinyServer) -> None:
        server.on("/", json_answer({}))
        for _ in range(5):
            send_request("GET", f"{server.origin}/")

        assert (len(server.requests), server.connections) == (5, 1)

    def test_opens_a_new_connection_when_the_old_one_was_closed(self, server: TinyServer) -> None:
        closing = dataclasses.replace(json_answer({"n": 1}), keep=False)
        server.on("/", closing, json_answer({"n": 2}))

        first = send_request("GET", f"{server.origin}/")
        server.wait_until_closed()
        second = send_request("GET", f"{server.origin}/")

        assert (first.json, second.json) == ({"n": 1}, {"n": 2})

    def test_is_made_once_whatever_happens(self, server: TinyServer) -> None:
        """A retried refresh would spend a token twice."""
        server.on("/", HANG_UP)
        failure("POST", f"{server.origin}/", form=FORM)
        server.on("/", json_answer({}, status=503, Retry_After="0"))
        send_request("POST", f"{server.origin}/", form=FORM)

        assert len(server.requests) == 2


class TestRedirect:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_is_not_followed(self, status: int, server: TinyServer) -> None:
        server.on("/token", answer(status=status, Location=f"{server.origin}/elsewhere"))

        found = send_request("POST", f"{server.origin}/token", form=FORM, bearer=BEARER)

        assert (found.status, found.ok) == (status, False)
        assert [seen.target for seen in server.requests] == ["/token"]

    def test_is_no_usable_answer(self, server: TinyServer) -> None:
        server.on("/", json_answer({"a": 1}, status=302, Location=f"{server.origin}/elsewhere"))

        with pytest.raises(ProviderUnavailable) as raised:
            call_api("GET", f"{server.origin}/")
        assert raised.value.status == 302

    @pytest.mark.parametrize("location", ["http://[", "//", "http://\xe9", "%", "ftp://a/b"])
    def test_to_nowhere_is_no_other_error(self, location: str, server: TinyServer) -> None:
        server.on("/", answer(status=302, Location=location))

        with pytest.raises(ProviderUnavailable):
            call_api("GET", f"{server.origin}/")

    def test_with_a_huge_body_is_not_read(self, server: TinyServer) -> None:
        body = b"x" * (20 * MAX_REPLY_BYTES)
        server.on("/", answer(body, status=302, Location="/elsewhere"))

        failure("GET", f"{server.origin}/")

        assert server.bytes_sent < len(body) / 2


class TestDeadline:
    """Each reply is sound and complete, and each of its bytes comes well within the read time-out;
    but the whole takes longer than the deadline."""

    def assert_ended(self, server: TinyServer, planned: Answering) -> None:
        server.on("/", planned)
        error = failure("POST", f"{server.origin}/", form=FORM)
        assert (error.status, error.request_sent) == (None, True)
        wait_until(lambda: bool(server.requests))
        assert len(server.requests) == 1

    def test_ends_a_dripping_status_line(self, server: TinyServer, clock: Clock) -> None:
        self.assert_ended(
            server, Dripping(clock, b"", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        )

    def test_ends_dripping_headers(self, server: TinyServer, clock: Clock) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"
        self.assert_ended(server, Dripping(clock, head, b"X-Drip: 1\r\n" * 3 + b"\r\n{}"))

    def test_ends_dripping_interim_replies(self, server: TinyServer, clock: Clock) -> None:
        whole = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
        self.assert_ended(server, Dripping(clock, b"", whole))

    def test_ends_a_dripping_body(self, server: TinyServer, clock: Clock) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n"
        self.assert_ended(server, Dripping(clock, head, b"{}".ljust(40)))

    def test_ends_a_dripping_body_of_no_announced_length(
        self, server: TinyServer, clock: Clock
    ) -> None:
        head = b"HTTP/1.1 200 OK\r\n\r\n"
        self.assert_ended(server, Dripping(clock, head, b"{}".ljust(40)))

    def test_ends_a_dripping_chunked_body(self, server: TinyServer, clock: Clock) -> None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"
        self.assert_ended(server, Dripping(clock, head, b"1\r\n \r\n" * 6 + b"0\r\n\r\n"))

    def test_ends_a_dripping_redirect(self, server: TinyServer, clock: Clock) -> None:
        head = b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 40\r\n\r\n"
        self.assert_ended(server, Dripping(clock, head, b"{}".ljust(40)))

    def test_ends_a_dripping_compressed_body(self, server: TinyServer, clock: Clock) -> None:
        body = gzip.compress(b'{"a": "0123456789abcdef"}')
        head = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n"
        self.assert_ended(server, Dripping(clock, head.format(len(body)).encode(), body))

    @pytest.mark.usefixtures("clock")
    def test_ends_a_silence(self, server: TinyServer, settings: ProjectSettings) -> None:
        settings.QUOTA_DEADLINE = REST
        self.assert_ended(server, json_answer({}, delay=TOO_LATE))

    def test_ends_a_silence_after_a_long_wait(self, server: TinyServer, clock: Clock) -> None:
        """Each of the two waits is within the read time-out."""
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{"

        def wait(request: Seen) -> Answer:
            clock.forward(LIMIT - REST)
            return Answer(head=head, pause=TOO_LATE, rest=b"}")

        self.assert_ended(server, wait)

    def test_holds_through_a_proxy(
        self, server: TinyServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """HTTP_PROXY of the environment: ordinary in companies."""
        monkeypatch.setenv("HTTP_PROXY", server.origin)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n"
        server.on("http://quota.example/", Dripping(clock, head, b"{}".ljust(40)))

        error = failure("POST", "http://quota.example/", form=FORM)

        assert error.status is None
        assert len(server.requests) == 1

    def test_starts_anew_with_each_exchange(self, server: TinyServer, clock: Clock) -> None:
        """The connection is the same, and its last exchange had a time left of its own."""

        def take_long(request: Seen) -> Answer:
            clock.forward(0.6 * LIMIT)
            return json_answer({})

        server.on("/", take_long)

        for _ in range(3):
            assert send_request("GET", f"{server.origin}/").status == 200
        assert server.connections == 1

    def test_does_not_cut_an_honest_reply_in_many_pieces(self, server: TinyServer) -> None:
        whole = json_answer({"a": 1})
        server.on("/", Answer(rest=whole.head, pause=0.002))

        assert send_request("GET", f"{server.origin}/").json == {"a": 1}


class TestWithin:
    @pytest.mark.usefixtures("clock")
    def test_bounds_an_exchange(self, server: TinyServer) -> None:
        server.on("/", json_answer({}, delay=TOO_LATE))

        with within(REST):
            error = failure("GET", f"{server.origin}/")
        assert error.request_sent is True

    def test_bounds_all_exchanges_together(self, server: TinyServer, clock: Clock) -> None:
        server.on("/", json_answer({}), json_answer({}, delay=TOO_LATE))

        with within(LIMIT):
            send_request("GET", f"{server.origin}/")
            clock.forward(LIMIT - REST)
            failure("GET", f"{server.origin}/")
        wait_until(lambda: len(server.requests) == 2)

    def test_leaves_a_request_unsent_when_nothing_is_left(self, server: TinyServer) -> None:
        """So that a refresh token is known to be unspent."""
        with within(0):
            error = failure("POST", f"{server.origin}/", form=FORM)

        assert error.request_sent is False
        assert server.requests == []

    @pytest.mark.parametrize(("outer", "inner"), [(0.2, 30), (30, 0.2)])
    def test_the_nearer_bound_holds(self, outer: float, inner: float, server: TinyServer) -> None:
        server.on("/", json_answer({}, delay=2))

        with within(outer), within(inner) as left:
            failure("GET", f"{server.origin}/")
        assert left <= 0.2 + 1e-6  # of a clock that counts in floats

    def test_ends_with_its_block(self, server: TinyServer) -> None:
        server.on("/", json_answer({}, delay=0.3))
        with within(0.2):
            pass
        with pytest.raises(ZeroDivisionError), within(0.2):
            raise ZeroDivisionError

        assert send_request("GET", f"{server.origin}/").status == 200

    @pytest.mark.usefixtures("clock")
    def test_does_not_extend_the_deadline(
        self, server: TinyServer, settings: ProjectSettings
    ) -> None:
        settings.QUOTA_DEADLINE = REST
        server.on("/", json_answer({}, delay=TOO_LATE))

        with within(LIMIT):
            failure("GET", f"{server.origin}/")

    def test_of_one_thread_is_not_that_of_another(self, server: TinyServer, clock: Clock) -> None:
        server.on("/", json_answer({}))
        found: list[int] = []

        def ask() -> None:
            found.append(send_request("GET", f"{server.origin}/").status)

        thread = threading.Thread(target=ask)
        with within(1):
            send_request("GET", f"{server.origin}/")
            clock.forward(2)
            thread.start()
            thread.join()

        assert found == [200]


@pytest.fixture(params=["http", "https"])
def each_server(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TinyServer]:
    tls = None
    if request.param == "https":
        made = certificate("127.0.0.1")
        (tmp_path / "ca.pem").write_bytes(made.public)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
        tls = made.server_context(tmp_path)
    with TinyServer(tls) as running:
        yield running
    transport._session().close()


class TestLimitsOfAConnection:
    """They are the same over TLS."""

    def test_reply_within_them_is_read(self, each_server: TinyServer) -> None:
        each_server.on("/", json_answer({"a": 1}))

        assert send_request("GET", f"{each_server.origin}/").json == {"a": 1}

    def test_reply_that_drips_past_the_deadline_is_not_read_to_its_end(
        self, each_server: TinyServer, clock: Clock
    ) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n"
        each_server.on("/", Dripping(clock, head, b'{"a": 1}'.ljust(60)))

        error = failure("GET", f"{each_server.origin}/")
        assert error.request_sent is True

    def test_request_is_not_sent_over_a_connection_that_was_made_too_late(
        self, each_server: TinyServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A refresh token that is not sent stays unspent."""
        monkeypatch.setattr(bounded_http, "MIN_SECONDS_TO_SEND", 60)

        error = failure("POST", f"{each_server.origin}/", form=FORM)

        assert error.request_sent is False
        assert each_server.requests == []


class TestReadTimeout:
    def test_ends_a_silence_before_the_deadline_does(
        self, server: TinyServer, settings: ProjectSettings
    ) -> None:
        settings.QUOTA_TIMEOUT = (1, 0.2)
        settings.QUOTA_DEADLINE = 3600
        server.on("/", json_answer({}, delay=2))

        assert failure("GET", f"{server.origin}/").request_sent is True


class TestBody:
    def test_of_json(self, server: TinyServer) -> None:
        server.on("/", json_answer({"a": [1, None, "ü"]}))

        found = send_request("GET", f"{server.origin}/")

        assert (found.status, found.ok, found.json) == (200, True, {"a": [1, None, "ü"]})

    def test_of_json_whatever_it_is_called(self, server: TinyServer) -> None:
        server.on("/", answer(b'{"a": 1}', Content_Type="text/plain"))

        assert send_request("GET", f"{server.origin}/").json == {"a": 1}

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"<!doctype html><title>503</title>",
            b"[1]",
            b'"text"',
            b"7",
            b"null",
            b"{",
            b'{"a": 1} trailing',
            b"\xff\xfe",
            b"\x00",
            b"[" * 100_000,
            b'{"a":' * 100_000,
            b'{"a": ' + b"9" * 5000 + b"}",
        ],
    )
    def test_that_is_no_json_object(self, body: bytes, server: TinyServer) -> None:
        server.on("/", answer(body))

        found = send_request("GET", f"{server.origin}/")

        assert (found.status, found.json, found.ok, found.error_code) == (200, None, False, "")

    def test_of_the_greatest_size(self, server: TinyServer) -> None:
        body = b'{"a": 1}'.ljust(MAX_REPLY_BYTES)
        server.on("/", answer(body))

        assert send_request("GET", f"{server.origin}/").json == {"a": 1}

    def test_of_a_byte_more(self, server: TinyServer) -> None:
        server.on("/", answer(b'{"a": 1}'.ljust(MAX_REPLY_BYTES + 1)))

        assert failure("GET", f"{server.origin}/").request_sent is True

    def test_of_ten_megabytes_is_not_read_to_its_end(self, server: TinyServer) -> None:
        body = b"x" * (20 * MAX_REPLY_BYTES)
        server.on("/", answer(body))

        failure("GET", f"{server.origin}/")

        assert server.bytes_sent < len(body) / 2

    def test_that_unpacks_to_more_than_the_greatest_size(self, server: TinyServer) -> None:
        bomb = gzip.compress(b" " * (20 * MAX_REPLY_BYTES), 9)
        assert len(bomb) < MAX_REPLY_BYTES
        server.on("/", answer(bomb, Content_Encoding="gzip"))

        failure("GET", f"{server.origin}/")

    def test_compressed(self, server: TinyServer) -> None:
        server.on("/", answer(gzip.compress(b'{"a": 1}'), Content_Encoding="gzip"))

        assert send_request("GET", f"{server.origin}/").json == {"a": 1}

    def test_that_only_claims_to_be_compressed(self, server: TinyServer) -> None:
        server.on("/", answer(b'{"a": 1}', Content_Encoding="gzip"))

        assert failure("GET", f"{server.origin}/").request_sent is True

    def test_cut_short(self, server: TinyServer) -> None:
        server.on("/", Answer(head=b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", keep=False))

        assert failure("GET", f"{server.origin}/").request_sent is True

    def test_cut_short_in_a_chunk(self, server: TinyServer) -> None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        server.on("/", Answer(head=head + b"9\r\n{}", keep=False))

        assert failure("GET", f"{server.origin}/").request_sent is True

    def test_after_one_too_many_the_next_exchange_works(self, server: TinyServer) -> None:
        server.on("/", answer(b" " * (2 * MAX_REPLY_BYTES)), json_answer({"a": 1}))

        failure("GET", f"{server.origin}/")

        assert send_request("GET", f"{server.origin}/").json == {"a": 1}


class TestFailure:
    def test_to_connect_leaves_the_request_unsent(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]

        assert failure("POST", f"http://127.0.0.1:{port}/", form=FORM).request_sent is False

    def test_to_find_the_host_leaves_the_request_unsent(self) -> None:
        assert failure("POST", "http://quota.invalid/", form=FORM).request_sent is False

    def test_to_connect_in_time_leaves_the_request_unsent(self, settings: ProjectSettings) -> None:
        """A listener whose queue is full does not answer a connection at all."""
        settings.QUOTA_TIMEOUT = (0.2, 5)
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
            port = full.getsockname()[1]
            fillers = [socket.socket() for _ in range(4)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))

            error = failure("POST", f"http://127.0.0.1:{port}/", form=FORM)

            for filler in fillers:
                filler.close()
        assert error.request_sent is False

    def test_after_the_request_may_have_spent_it(self, server: TinyServer) -> None:
        server.on("/", HANG_UP)

        error = failure("POST", f"{server.origin}/", form=FORM)

        assert (error.request_sent, error.status) == (True, None)
        assert server.requests[0].form == FORM

    def test_of_tls_is_no_other_error(self, server: TinyServer, settings: Any) -> None:
        settings.QUOTA_TIMEOUT = (0.1, 0.1)  # the server waits for a line that does not come
        failure("GET", server.origin.replace("http://", "https://") + "/")

    @pytest.mark.parametrize(
        "noise",
        [
            b"garbage\r\n\r\n",
            b"HTTP/1.1 banana OK\r\n\r\n",
            b"HTTP/9.9 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n",
            b"HTTP/1.1 200 OK\r\na: " + b"b" * 70_000 + b"\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            b"\x16\x03\x01\x02\x00",
        ],
    )
    def test_of_the_protocol_is_no_other_error(self, noise: bytes, server: TinyServer) -> None:
        server.on("/", Answer(head=noise, keep=False))

        assert failure("POST", f"{server.origin}/", form=FORM).request_sent is True

    @pytest.mark.parametrize(
        "url", ["", "nonsense", "http://", "http://[", "ftp://a/", "http://a:b/"]
    )
    def test_of_the_url_is_no_other_error(self, url: str) -> None:
        failure("GET", url)

    @pytest.mark.parametrize("bearer", ["a\r\nX-Injected: 1", "a\nb", "日本"])
    def test_of_a_bearer_that_is_none_sends_nothing(self, bearer: str, server: TinyServer) -> None:
        failure("GET", f"{server.origin}/", bearer=bearer)

        assert server.requests == []

    @pytest.mark.parametrize("where", ["closed", "silence", "garbage", "flood"])
    def test_shows_no_secret(self, where: str, server: TinyServer) -> None:
        server.on("/silence", HANG_UP)
        server.on("/garbage", Answer(head=b"quota_token_hush\r\n\r\n", keep=False))
        server.on("/flood", answer(b"hush " * MAX_REPLY_BYTES))
        origin = "http://127.0.0.1:1" if where == "closed" else server.origin

        error = failure("POST", f"{origin}/{where}?code=hush", form=FORM, bearer=BEARER)

        assert "hush" not in shown(error)

    def test_says_what_to_do(self) -> None:
        local, remote = (failure("GET", f"{scheme}://127.0.0.1:1/") for scheme in ("http", "https"))

        assert str(local) == (
            "Quota cannot be reached (connection refused); try again later. "
            "Is the local one running?"
        )
        assert str(remote) == "Quota cannot be reached (connection refused); try again later."


class TestErrorCode:
    @pytest.mark.parametrize(
        "body",
        [
            {"error": "invalid_grant", "error_description": "spent"},
            {"error": {"code": "invalid_grant", "message": "spent", "hint": "sign in"}},
        ],
    )
    def test_of_both_shapes(self, body: Any) -> None:
        assert reply(400, body).error_code == "invalid_grant"

    @pytest.mark.parametrize(
        "body",
        [
            None,
            {},
            {"error": None},
            {"error": ""},
            {"error": 7},
            {"error": ["invalid_grant"]},
            {"error": {}},
            {"error": {"code": None}},
            {"error": {"code": {"code": "invalid_grant"}}},
            {"error": {"error": "invalid_grant"}},
            {"error": "Invalid_Grant"},
            {"error": "invalid grant"},
            {"error": "invalid_grant\n"},
            {"error": "invalid_grant\nFAKE LOG LINE"},
            {"error": "quota_refresh_1a2b"},
            {"error": "<script>"},
            {"error": "a" * 65},
            {"error": "invalid_gränt"},
            {"code": "invalid_grant"},
        ],
    )
    def test_is_nothing_that_does_not_look_like_one(self, body: Any) -> None:
        assert reply(400, body).error_code == ""


class TestHeaders:
    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            ("120", 120),
            ("0", 0),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("Wed, 21 Oct 2026 07:28:00 GMT", None),
            ("9" * 10, None),
            ("²", None),
        ],
    )
    def test_retry_after(self, value: str, seconds: int | None) -> None:
        assert retry_after(reply(429, Retry_After=value).headers) == seconds

    def test_retry_after_missing(self) -> None:
        assert retry_after(reply(429).headers) is None

    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            ("max-age=3600", 3600),
            ("public, max-age=3600, must-revalidate", 3600),
            ("max-age=0", 0),
            ("Max-Age=3600", 3600),
            ("s-maxage=9", None),
            ("s-maxage=9, max-age=3", 3),
            ("no-store", None),
            ("max-age=-1", None),
            ("max-age=soon", None),
            ("max-age=" + "9" * 20, None),
            ("", None),
        ],
    )
    def test_max_age(self, value: str, seconds: int | None) -> None:
        assert reply(Cache_Control=value).max_age == seconds

    def test_max_age_missing(self) -> None:
        assert reply().max_age is None


class TestCall:
    def error(self, server: TinyServer, planned: Answer) -> QuotaError:
        server.on("/", planned)
        with pytest.raises(QuotaError) as raised:
            call_api("GET", f"{server.origin}/", bearer=BEARER)
        assert "hush" not in str(raised.value)
        return raised.value

    @pytest.mark.parametrize("status", [200, 201, 299])
    def test_brings_the_reply(self, status: int, server: TinyServer) -> None:
        server.on("/", json_answer({"a": 1}, status=status))

        assert call_api("GET", f"{server.origin}/") == {"a": 1}

    def test_without_an_object_is_no_success(self, server: TinyServer) -> None:
        error = self.error(server, answer(b"<html>hush</html>"))

        assert type(error) is ProviderUnavailable
        assert error.status == 200

    def test_rate_limited(self, server: TinyServer) -> None:
        error = self.error(server, json_answer({"error": "x"}, status=429, Retry_After="7"))

        assert type(error) is RateLimited
        assert (error.retry_after, error.status) == (7, 429)

    def test_without_credits(self, server: TinyServer) -> None:
        body = {"error": {"code": "insufficient_credits"}}
        assert type(self.error(server, json_answer(body, status=402))) is InsufficientCredits

    def test_without_a_scope(self, server: TinyServer) -> None:
        body = {"error": {"code": "insufficient_scope"}}
        assert type(self.error(server, json_answer(body, status=403))) is InsufficientScope

    @pytest.mark.parametrize(
        ("status", "code"),
        [(400, "bad_request"), (401, "invalid_token"), (403, "forbidden"), (404, ""), (499, "")],
    )
    def test_refused(self, status: int, code: str, server: TinyServer) -> None:
        body = {"error": {"code": code, "message": "hush"}}
        error = self.error(server, json_answer(body, status=status))

        assert type(error) is RequestRefused
        assert (error.status, error.provider_code) == (status, code)
        assert str(error) == f"Quota refused the request: HTTP {status} {code}".rstrip() + "."

    @pytest.mark.parametrize("status", [300, 304, 500, 502, 503, 504, 599])
    def test_unusable(self, status: int, server: TinyServer) -> None:
        # 304 has no body, whatever its headers say.
        body = b"" if status == 304 else b'{"error": "hush"}'
        error = self.error(server, answer(body, status=status))

        assert type(error) is ProviderUnavailable
        assert (error.status, error.request_sent) == (status, True)


@pytest.mark.process
def test_a_forked_process_opens_connections_of_its_own() -> None:
    """Two processes reading from one socket would get each other's answers."""
    assert programs.run("fork_with_session") == "0 True\n"
