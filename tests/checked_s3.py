"""What S3 does with the hash of an object and moto does not: it refuses other bytes, and keeps the hash."""

import base64
import hashlib
import io
from typing import Any

REFUSAL = b"<Error><Code>BadDigest</Code><Message>The SHA256 you specified did not match.</Message></Error>"


class Checksums:
    """A WSGI application before moto's."""

    def __init__(self, application: Any) -> None:  # noqa: ANN401 - moto is not typed
        self._application = application

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:  # noqa: ANN401 - WSGI's own
        expected = environ.get("HTTP_X_AMZ_CHECKSUM_SHA256")
        if environ["REQUEST_METHOD"] == "PUT" and expected:
            body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            if base64.b64encode(hashlib.sha256(body).digest()).decode() != expected:
                start_response("400 Bad Request", [("content-type", "application/xml")])
                return [REFUSAL]
            environ |= {"wsgi.input": io.BytesIO(body), "HTTP_X_AMZ_SDK_CHECKSUM_ALGORITHM": "SHA256"}
        return list(self._application(environ, start_response))
