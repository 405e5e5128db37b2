"""Which names and which pages reach the gateway: a page of another site does not, a program does."""

import http.client
import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from pilotlight.errors import InvalidInputError
from pilotlight.local.gateway import Gateway
from pilotlight.local.gateway_errors import GatewayError
from pilotlight.local.origin_policy import OriginPolicy, is_loopback, parse_origin
from tests.core.local.http_client import ask, get
from tests.fakes import eventually

SITE = "https://app.example.com"


def scope(headers: dict[str, str], method: str = "POST", version: str = "1.1") -> dict[str, Any]:
    listed = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    return {"method": method, "headers": listed, "http_version": version}


def status(policy: OriginPolicy, headers: dict[str, str], method: str = "POST", version: str = "1.1") -> int:
    try:
        policy.check_request(scope(headers, method, version))
    except GatewayError as exc:
        return exc.kind.status
    return 200


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1:8080", 200),
        ("localhost", 200),
        ("LOCALHOST:9000", 200),  # a tunnel's port is another one
        ("localhost.", 200),
        ("[::1]:8080", 200),
        ("models.example.com:8080", 200),  # as it was allowed
        ("evil.example.com", 421),
        ("127.0.0.1.evil.example.com", 421),
        ("localhost.evil.example.com", 421),
        ("192.168.0.7", 421),  # of another interface, on which it does not listen
        ("", 421),
        ("[::1", 200),
        ("local\xe9", 421),
    ],
)
def test_hosts_of_a_gateway_of_this_machine(host: str, expected: int) -> None:
    assert status(OriginPolicy("127.0.0.1", ["Models.example.com"]), {"Host": host}) == expected


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7"])  # noqa: S104  # nothing listens
def test_gateway_of_all_addresses_answers_to_any_address_and_to_no_name(host: str) -> None:
    policy = OriginPolicy(host)
    assert status(policy, {"Host": "192.168.0.7:8080"}) == 200
    assert status(policy, {"Host": "[fe80::1]:8080"}) == 200
    assert status(policy, {"Host": "evil.example.com"}) == 421


def test_request_has_one_host() -> None:
    policy = OriginPolicy("localhost")
    twice = scope({"Host": "localhost"})
    twice["headers"] *= 2
    with pytest.raises(GatewayError, match="has 2"):
        policy.check_request(twice)
    assert status(policy, {}) == 400
    assert status(policy, {}, version="1.0") == 200


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 200),
        ({"Origin": "http://localhost:8080"}, 200),
        ({"Origin": "https://localhost:8080"}, 200),  # behind a proxy that ends TLS
        ({"Origin": SITE}, 200),
        ({"Origin": SITE, "Sec-Fetch-Site": "cross-site"}, 200),
        ({"Origin": "https://evil.example.com"}, 403),
        ({"Origin": "http://localhost:3000"}, 403),  # another server of this machine is another site
        ({"Origin": "http://app.example.com"}, 403),
        ({"Origin": f"{SITE}.evil.com"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Origin": "\xff"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403),  # a form without an Origin
    ],
)
def test_pages(headers: dict[str, str], expected: int) -> None:
    policy = OriginPolicy("127.0.0.1", (), [SITE])
    assert status(policy, {"Host": "localhost:8080"} | headers) == expected


def test_link_of_another_site_opens_a_page() -> None:
    headers = {"Host": "localhost", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert status(OriginPolicy("localhost"), headers, "GET") == 200


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("HTTPS://App.Example.com/", SITE),
        ("https://app.example.com:443", SITE),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:3000", "http://[::1]:3000"),
    ],
)
def test_origins_are_read_as_browsers_write_them(text: str, origin: str) -> None:
    assert parse_origin(text) == origin


@pytest.mark.parametrize(
    "text", ["", "*", "null", "app.example.com", "https://", "https://a/b", "https://a:x", "ftp://a"]
)
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="is no origin"):
        OriginPolicy("localhost", (), [text])


@pytest.mark.parametrize("name", ["", "*", "https://models.example.com", "a b"])
def test_what_is_no_host_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match="is no name of a host"):
        OriginPolicy("localhost", [name])


def test_loopback() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost", "0.0.0.0", "::", "x")] == [  # noqa: S104
        True, True, True, True, False, False, False,
    ]  # fmt: skip


# --- over HTTP


def test_foreign_pages_and_names_reach_no_function(url: str) -> None:
    before = get(url, "/act/pid").json["seen"].count("print")
    rebound = ask(url, "POST", "/act/print", b"{}", {"Host": "evil.example.com"})
    posted = ask(url, "POST", "/act/print", b"{}", {"Content-Type": "text/plain", "Origin": "https://evil.example.com"})
    loaded = ask(url, "GET", "/act/print", None, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"})
    assert [reply.status for reply in (rebound, posted, loaded)] == [421, 403, 403]
    assert rebound.error.endswith("is no name of this gateway; if it should be one, serve with --allow-host NAME.")
    assert "--allow-origin URL" in posted.error
    assert get(url, "/act/pid").json["seen"].count("print") == before
    assert ask(url, "POST", "/echo", b"{}", {"Origin": url}).status == 200


def test_page_of_a_named_site_is_asked_first_and_may_read_the_answer(stack: Path) -> None:
    with Gateway(stack, port=0, workers=1, allowed_origins=[SITE]).serve_in_background() as url:
        question = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
        asked = ask(url, "OPTIONS", "/reply", None, {"Origin": SITE, **question})
        assert (asked.status, asked.headers["access-control-allow-origin"]) == (204, SITE)
        assert asked.headers["access-control-allow-methods"] == "POST"
        assert asked.headers["access-control-allow-headers"] == "content-type"
        reply = ask(url, "POST", "/reply", json.dumps({"statusCode": 200}), {"Origin": SITE})
        assert (reply.status, reply.headers["access-control-allow-origin"]) == (200, SITE)
        other = ask(url, "OPTIONS", "/reply", None, {"Origin": "https://evil.example.com", **question})
        assert (other.status, other.headers["access-control-allow-origin"]) == (403, None)
        assert get(url, "/echo").headers["access-control-allow-origin"] is None


def runtime_api_of(url: str) -> str:
    return str(get(url, "/echo").json["environ"]["AWS_LAMBDA_RUNTIME_API"])


def test_runtime_api_hears_its_own_process_alone(url: str) -> None:
    connection = http.client.HTTPConnection(runtime_api_of(url), timeout=20)
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        steal(connection)
    reply = get(url, "/echo")
    assert reply.status == 200
    assert psutil.Process(int(reply.json["pid"])).ppid() == os.getpid()


def steal(connection: http.client.HTTPConnection) -> None:
    """Ask for the next event, as a page or another program of this machine could."""
    connection.request("GET", "/2018-06-01/runtime/invocation/next")
    connection.getresponse()


def test_handlers_boto3_knows_the_secret_and_no_log_does(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "pilotlight.local")
    endpoint = get(url, "/echo").json["environ"]["AWS_ENDPOINT_URL_LAMBDA"]
    secret = urlsplit(endpoint).path
    assert len(secret) > 32
    path = f"{secret}/2015-03-31/functions/EchoFunction/invocations"
    assert ask(url, "POST", path, b"{}").json["statusCode"] == 200
    assert ask(url, "POST", path, b"{}", {"X-Amz-Invocation-Type": "Event"}).status == 202
    large = ask(url, "POST", path, json.dumps("x" * 2**20).encode(), {"X-Amz-Invocation-Type": "Event"})
    assert (large.status, large.headers["x-amzn-errortype"]) == (413, "RequestTooLargeException")
    eventually(lambda: len(list_access_lines(caplog)) == 3)
    assert not any(secret.strip("/") in line for line in list_access_lines(caplog))


def list_access_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records]
    return [line for line in found if line.startswith("POST ")]
