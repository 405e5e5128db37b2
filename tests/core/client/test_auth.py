"""What the commands send so that a server lets them in, told by a server that checks it."""

import hashlib
import hmac
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote

import pytest

from pilotlight.client.auth import Credentials, IamAuth, OfferedIamAuth
from pilotlight.client.client import Client
from pilotlight.errors import InvalidInputError
from tests.threaded_server import serve_in_thread

KEY_ID, SECRET, SESSION, REGION = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "a session", "eu-central-1"
FORM = re.compile(
    rf"AWS4-HMAC-SHA256 Credential={KEY_ID}/(\d{{8}})/{REGION}/execute-api/aws4_request, "
    r"SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})"
)


class Asked(BaseHTTPRequestHandler):
    """Answers who has signed, and says 403 to others, as API Gateway does."""

    server: "Checking"

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the standard library
        """Say nothing."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.seen.append({name.lower(): value for name, value in self.headers.items()})
        known = signature(self.command, self.path, dict(self.headers.items()), body)
        said = self.headers.get("authorization", "").rpartition("Signature=")[2]
        self.send_response(200 if known and hmac.compare_digest(said, known) else 403)
        if self.server.hints:
            self.send_header("www-authenticate", "AWS4-HMAC-SHA256")
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")


class Checking(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Asked)
        self.seen: list[dict[str, str]] = []
        self.hints = False


def signature(method: str, target: str, headers: dict[str, str], body: bytes) -> str:
    """By AWS's description, "Create a signed AWS API request", step by step; empty for a header in another form."""
    named = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    found = FORM.fullmatch(named.get("authorization", ""))
    if found is None:
        return ""
    day, signed, _ = found.groups()
    path, _, query = target.partition("?")
    pairs = sorted(
        tuple(quote(unquote(part), safe="-_.~") for part in pair.partition("=")[::2])
        for pair in query.split("&")
        if pair
    )
    request = "\n".join(
        [
            method,
            quote(path, safe="/-_.~"),  # once more: all services but S3 encode twice
            "&".join("=".join(pair) for pair in pairs),
            *(f"{name}:{named[name]}" for name in signed.split(";")),
            "",
            signed,
            hashlib.sha256(body).hexdigest(),
        ]
    )
    scope = f"{day}/{REGION}/execute-api/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", named["x-amz-date"], scope, hashlib.sha256(request.encode()).hexdigest()])
    key = f"AWS4{SECRET}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.new(key, text.encode(), "sha256").hexdigest()


@pytest.fixture
def server() -> Iterator[Checking]:
    found = Checking()
    with serve_in_thread(found):
        yield found


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """AWS's variables, and none of this machine's files."""
    for name, value in {"ACCESS_KEY_ID": KEY_ID, "SECRET_ACCESS_KEY": SECRET, "SESSION_TOKEN": SESSION}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path_factory.getbasetemp() / "nothing"))
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def client(server: Checking, **environment: str) -> Client:
    url = f"http://127.0.0.1:{server.server_port}"
    given = Credentials.from_environment(environment, url)
    return Client(url, headers=given.headers, auth=given.auth)


@pytest.mark.parametrize("body", [b"", b"{}", bytes(range(256))])
@pytest.mark.parametrize(
    "path",
    [
        "/v2",
        "/prod/v2/models/digits@candidate/infer",
        "/v2/models/a%20b%2Fc/infer",
        "/registry/models?limit=2&after=a%2Bb&x=",
    ],
)
def test_a_signed_request_is_let_in(server: Checking, path: str, body: bytes) -> None:
    with client(server, PILOTLIGHT_AUTH="iam") as signed, client(server) as bare:
        method = "POST" if body else "GET"
        assert signed.send_request(method, path, body or None).status == 200
        assert bare.send_request(method, path, body or None).status == 403
    assert server.seen[0]["x-amz-security-token"] == SESSION


@pytest.mark.parametrize("name", ["KEY", "TOKEN"])
def test_keys_and_tokens_are_bearers(server: Checking, name: str) -> None:
    with client(server, **{f"PILOTLIGHT_{name}": "k-1\n"}) as connected:
        connected.send_request("GET", "/v2")
    assert server.seen[0]["authorization"] == "Bearer k-1"
    assert not Credentials.from_environment({}, "http://localhost")


def test_a_client_takes_a_key(server: Checking) -> None:
    with Client(f"http://127.0.0.1:{server.server_port}", key="k-1", headers={"x-more": "1"}) as connected:
        connected.send_request("GET", "/v2")
    assert (server.seen[0]["authorization"], server.seen[0]["x-more"]) == ("Bearer k-1", "1")


def test_a_server_that_asks_for_a_signature_gets_one_from_then_on(server: Checking) -> None:
    server.hints = True
    url = f"http://127.0.0.1:{server.server_port}"
    with Client(url, auth=OfferedIamAuth(url)) as connected:
        assert connected.send_request("POST", "/v2/models/digits/infer", b"{}").status == 200
        assert connected.send_request("GET", "/v2").status == 200
    assert ["authorization" in headers for headers in server.seen] == [False, True, True]


def test_a_server_that_does_not_ask_gets_none(server: Checking) -> None:
    url = f"http://127.0.0.1:{server.server_port}"
    with Client(url, auth=OfferedIamAuth(url)) as connected:
        assert connected.send_request("GET", "/v2").status == 403
    assert ["authorization" in headers for headers in server.seen] == [False]


@pytest.mark.parametrize(
    ("url", "is_offered"),
    [
        ("https://abc.execute-api.eu-west-3.amazonaws.com/prod", True),
        ("https://vpce-1.execute-api.cn-north-1.amazonaws.com.cn", True),
        ("http://abc.execute-api.eu-west-3.amazonaws.com/prod", False),
        ("https://abc.execute-api.eu-west-3.amazonaws.com.evil.example/prod", False),
        ("https://evil.example/abc.execute-api.eu-west-3.amazonaws.com/", False),
        ("https://models.example.com", False),
    ],
)
def test_signatures_are_offered_to_aws_alone(url: str, is_offered: bool) -> None:
    assert isinstance(Credentials.from_environment({}, url).auth, OfferedIamAuth) == is_offered
    assert Credentials.from_environment({"PILOTLIGHT_KEY": "k"}, url).auth is None


def test_the_region_is_that_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    found = Credentials.from_environment(
        {"PILOTLIGHT_AUTH": "iam"}, "https://abc.execute-api.eu-west-3.amazonaws.com/prod"
    )
    assert isinstance(found.auth, IamAuth)
    assert found.auth._region == "eu-west-3"


@pytest.mark.parametrize(
    ("environment", "without", "said"),
    [
        ({"PILOTLIGHT_AUTH": "basic"}, (), "PILOTLIGHT_AUTH is 'basic'; it may be iam"),
        ({"PILOTLIGHT_AUTH": "iam", "PILOTLIGHT_TOKEN": "t"}, (), "PILOTLIGHT_TOKEN and PILOTLIGHT_AUTH are set"),
        ({"PILOTLIGHT_KEY": "k", "PILOTLIGHT_TOKEN": "t"}, (), "PILOTLIGHT_KEY and PILOTLIGHT_TOKEN are set together"),
        ({"PILOTLIGHT_AUTH": "iam"}, ("AWS_DEFAULT_REGION",), "names no region; set AWS_REGION"),
        ({"PILOTLIGHT_AUTH": "iam"}, ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "no AWS credentials"),
    ],
)
def test_what_cannot_be_is_said(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], without: tuple[str, ...], said: str
) -> None:
    for name in without:
        monkeypatch.delenv(name)
    with pytest.raises(InvalidInputError, match=said):
        Credentials.from_environment(environment, "https://models.example.com")


def test_a_profile_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(InvalidInputError, match=r"no AWS credentials: .*nobody"):
        Credentials.from_environment({"PILOTLIGHT_AUTH": "iam"}, "https://models.example.com")
