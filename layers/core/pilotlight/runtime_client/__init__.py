"""A Lambda runtime client of the standard library alone, which can stream answers; AWS's own for python cannot.

    python -m pilotlight.runtime_client HANDLER

It imports the handler, then asks the Runtime API for one event after the other, as AWS's does: with the same names of
errors, the same exits, the same lines of log. It knows nothing of the gateway but the Runtime API. Functions that
stream start it by a script in AWS_LAMBDA_EXEC_WRAPPER; the local gateway also uses it where AWS's client is missing.

Source of the Runtime API: AWS Lambda, developer guide, "Using the Lambda runtime API"; of its streaming mode, what
AWS's client for Rust sends (aws-lambda-rust-runtime, lambda-runtime/src/requests.rs).
"""
