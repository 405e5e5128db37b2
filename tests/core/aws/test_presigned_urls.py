"""Presigned requests: where they go, and what they hold their sender to."""

from urllib.parse import parse_qs, urlsplit

import pytest

from pilotlight.aws.presigned_urls import Presigner

SHA256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of abc
BASE64 = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("us-east-1", "models-1.s3.amazonaws.com"),  # the global host's own region
        ("eu-central-1", "models-1.s3.eu-central-1.amazonaws.com"),
        ("cn-north-1", "models-1.s3.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_on_aws_a_url_names_the_region(monkeypatch: pytest.MonkeyPatch, region: str, host: str) -> None:
    """The global host redirects for hours after a bucket was created, and a signature covers the host."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", region)
    signed = Presigner("models-1", "prefix").presign_upload("models/m/versions/1/a", 3, SHA256)
    parts = urlsplit(signed.url)
    assert (parts.netloc, parts.path) == (host, "/prefix/models/m/versions/1/a")


@pytest.mark.parametrize("as_variable", [True, False])
def test_another_server_gets_the_bucket_in_the_path(monkeypatch: pytest.MonkeyPatch, *, as_variable: bool) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    if as_variable:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    presigner = Presigner("models-1", "", "" if as_variable else "http://127.0.0.1:9000")
    assert presigner.presign_download("a", "b").startswith("http://127.0.0.1:9000/models-1/a?")


def test_an_upload_is_held_to_its_size_its_hash_and_an_empty_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    signed = Presigner("models-1", "").presign_upload("a", 3, SHA256)
    assert signed.headers == {"content-length": "3", "if-none-match": "*", "x-amz-checksum-sha256": BASE64}
    headers = parse_qs(urlsplit(signed.url).query)["X-Amz-SignedHeaders"][0].split(";")
    assert set(headers) == {"host", *signed.headers}
