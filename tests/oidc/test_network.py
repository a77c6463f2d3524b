"""django_quota.network: both HTTP libraries go the way that the environment names."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from django_quota.ai import factory
from django_quota.exceptions import ConfigurationError, ProviderUnavailable
from django_quota.oidc import network, transport
from django_quota.oidc.network import fault, way_to
from tests.helpers.certificates import certificate
from tests.helpers.concurrency import run_async
from tests.shown import refusal, shown
from tests.tiny_server import HANG_UP, TinyServer, answer, json_answer

MODELS = json_answer({"object": "list", "data": []})
CERTIFICATE = certificate("127.0.0.1")
DEAD = "http://127.0.0.1:9"  # the discard port: nobody listens


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in network.CA_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    network._way_to.cache_clear()
    yield
    network._way_to.cache_clear()
    transport._session().close()
    factory._shared_client.cache_clear()


def sign_in_half(url: str) -> None:
    transport.send_request("GET", f"{url}/v1/models")


def ai_half(url: str) -> None:
    factory.developer_client("sk-quota-x").models.list()


def async_ai_half(url: str) -> None:
    async def main() -> None:
        await factory.async_developer_client("sk-quota-x").models.list()

    run_async(main())


HALVES = [sign_in_half, ai_half, async_ai_half]
Half = Callable[[str], None]


class TestProxy:
    @pytest.mark.parametrize("half", HALVES)
    @pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
    @pytest.mark.parametrize("scheme", [True, False], ids=["URL", "host and port"])
    def test_of_the_environment_is_used(
        self,
        half: Half,
        variable: str,
        scheme: bool,
        settings: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        settings.QUOTA_BASE_URL = url = "http://localhost:9"
        with TinyServer() as proxy:
            proxy.on(f"{url}/v1/models", MODELS)
            monkeypatch.setenv(
                variable, proxy.origin if scheme else proxy.origin.removeprefix("http://")
            )

            half(url)

            assert [seen.target for seen in proxy.requests] == [f"{url}/v1/models"]

    @pytest.mark.parametrize("half", HALVES)
    @pytest.mark.parametrize(
        "proxy", [DEAD, "socks5://127.0.0.1:9", "socks5h://127.0.0.1:9", "socks://127.0.0.1:9", "x"]
    )
    @pytest.mark.parametrize(
        "no_proxy",
        ["127.0.0.1", "localhost,127.0.0.0/8", "*", "127.0.0.1,::1,[::1],fd00::/8,.local"],
    )
    def test_is_not_used_for_a_host_in_no_proxy(
        self,
        half: Half,
        proxy: str,
        no_proxy: str,
        settings: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("ALL_PROXY", proxy)
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setenv("NO_PROXY", no_proxy)
        with TinyServer() as quota:
            settings.QUOTA_BASE_URL = quota.origin
            quota.on("/v1/models", MODELS)

            half(quota.origin)

            assert len(quota.requests) == 1

    @pytest.mark.parametrize("half", HALVES)
    @pytest.mark.parametrize("variable", ["ALL_PROXY", "HTTPS_PROXY"])
    @pytest.mark.parametrize(
        ("proxy", "cure"),
        [
            ("socks5://u:hush@127.0.0.1:9", 'pip install "requests[socks]" "socksio"'),
            ("socks5h://u:hush@127.0.0.1:9", 'pip install "requests[socks]" "socksio"'),
            ("socks://u:hush@127.0.0.1:9", "write it as http://host:port"),
            ("ftp://u:hush@127.0.0.1:9", "write it as http://host:port"),
            ("http://u:hush@127.0.0.1:port", "write it as http://host:port"),
            ("http://u:hush@[::1", "write it as http://host:port"),
            ("http://", "write it as http://host:port"),
        ],
    )
    def test_that_cannot_be_used_is_named_with_the_cure(
        self,
        half: Half,
        variable: str,
        proxy: str,
        cure: str,
        settings: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(network, "find_spec", lambda name: None)
        settings.QUOTA_BASE_URL = url = "https://quota.example"
        monkeypatch.setenv(variable, proxy)

        error = refusal(lambda: half(url), ConfigurationError)

        assert str(error).startswith(f"{variable} in the environment ")
        assert cure in str(error) and "NO_PROXY" in str(error)

    def test_by_socks_is_used_where_both_packages_are_there(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(network, "find_spec", lambda name: object())
        monkeypatch.setenv("ALL_PROXY", "socks5h://127.0.0.1:1080")
        assert way_to("https://quota.example").proxy == "socks5h://127.0.0.1:1080"

    @pytest.mark.parametrize("value", ["", None])
    def test_that_is_empty_is_none(
        self, value: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if value is not None:
            monkeypatch.setenv("HTTPS_PROXY", value)
        assert way_to("https://quota.example").proxy is None

    def test_with_a_password_is_not_shown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTPS_PROXY", "http://u:hush@127.0.0.1:9")
        assert "hush" not in repr(way_to("https://quota.example"))


def test_the_way_is_worked_out_once_for_each_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "https://quota.example"
    for path in ("/v1/balance", "/oauth/token", ""):
        assert way_to(url + path).proxy is None
    assert network._way_to.cache_info().misses == 1
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    assert way_to(url).proxy == "http://127.0.0.1:9"


class TestCertificates:
    @pytest.fixture
    def quota(self, tmp_path: Path, settings: Any) -> Iterator[TinyServer]:
        with TinyServer(tls=CERTIFICATE.server_context(tmp_path)) as server:
            server.on("/v1/models", MODELS)
            settings.QUOTA_BASE_URL = server.origin
            yield server

    @pytest.mark.parametrize("half", HALVES)
    @pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
    def test_of_the_environment_are_believed(
        self,
        half: Half,
        variable: str,
        quota: TinyServer,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        ours = tmp_path / "ours.pem"
        ours.write_bytes(CERTIFICATE.public)
        monkeypatch.setenv(variable, str(ours))

        half(quota.origin)

        assert len(quota.requests) == 1

    @pytest.mark.parametrize("half", HALVES)
    def test_of_nobody_are_not_believed(self, half: Half, quota: TinyServer) -> None:
        error = refusal(lambda: half(quota.origin), ProviderUnavailable)

        assert "(TLS: CERTIFICATE_VERIFY_FAILED)" in str(error)
        assert quota.requests == []

    @pytest.mark.parametrize("half", HALVES)
    @pytest.mark.parametrize("variable", network.CA_VARIABLES[:3])
    @pytest.mark.parametrize("content", [None, b"", b"no PEM"])
    def test_that_cannot_be_read_are_named_with_the_cure(
        self,
        half: Half,
        variable: str,
        content: bytes | None,
        quota: TinyServer,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        path = tmp_path / "none.pem"
        if content is not None:
            path.write_bytes(content)
        monkeypatch.setenv(variable, str(path))

        error = refusal(lambda: half(quota.origin), ConfigurationError)

        assert str(error).startswith(f"{variable} in the environment names ")
        assert "correct the path to a PEM file, or unset" in str(error)


class TestFault:
    @pytest.mark.parametrize("half", HALVES)
    def test_of_a_closed_port(self, half: Half, settings: Any) -> None:
        settings.QUOTA_BASE_URL = DEAD
        error = refusal(lambda: half(DEAD), ProviderUnavailable)
        assert "(connection refused); try again later" in str(error)

    @pytest.mark.parametrize("half", HALVES)
    def test_of_a_name_that_is_not_known(
        self, half: Half, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def unknown(*args: Any, **options: Any) -> Any:
            raise socket.gaierror(socket.EAI_NONAME, "not known")

        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        settings.QUOTA_BASE_URL = url = "https://quota.example"
        assert "(DNS: no such host)" in str(refusal(lambda: half(url), ProviderUnavailable))

    def test_of_a_silence(self, settings: Any) -> None:
        with TinyServer() as quota:
            quota.on("/v1/models", json_answer({}, delay=20))
            settings.QUOTA_BASE_URL = quota.origin
            client = factory.developer_client("sk-quota-x").with_options(timeout=0.2)
            error = refusal(client.models.list, ProviderUnavailable)
            assert "(timed out)" in str(error)

    @pytest.mark.parametrize(
        ("reply", "known"), [(HANG_UP, ""), (answer(status=500), " (HTTP 500)")]
    )
    def test_of_another_kind_is_not_guessed(self, reply: Any, known: str, settings: Any) -> None:
        with TinyServer() as quota:
            quota.on("/v1/models", reply)
            settings.QUOTA_BASE_URL = quota.origin
            error = refusal(lambda: ai_half(""), ProviderUnavailable)
        assert str(error) == f"Quota gave no usable answer{known}; try again later."

    def test_is_found_behind_others(self) -> None:
        inner = ExceptionGroup("all attempts", [OSError("one"), ConnectionRefusedError()])
        outer = RuntimeError("outer")
        outer.__cause__ = OSError(inner)
        assert fault(outer) == "connection refused"

    def test_that_goes_round_in_circles_ends(self) -> None:
        one, other = OSError("one"), OSError("other")
        one.__cause__, other.__context__ = other, one
        assert fault(one) == ""

    def test_of_tls_without_a_reason(self) -> None:
        assert fault(ssl.SSLError("x")) == "TLS: no connection"
        assert "hush" not in shown(ProviderUnavailable(fault(ssl.SSLError("hush"))))
