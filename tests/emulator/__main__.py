"""Start the emulator on a port of this machine, with everything that is added to it."""

import argparse
import os
import sys
from pathlib import Path

ACCOUNT_ROOT = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.emulator", description=__doc__)
    parser.add_argument("--port", type=int, default=4566)
    parser.add_argument("--iam", choices=["on", "off"], default="on", help="whether calls are judged by policies")
    parser.add_argument("--usage", type=Path, help="where each judged call is noted, a line of JSON each")
    parser.add_argument("--trust", type=Path, help="certificates that functions trust from when they are there")
    return parser.parse_args()


def main() -> None:
    """Set what ministack reads while it is imported, then import it."""
    given = read_arguments()
    os.environ.update(
        ACCOUNT_ROOT,
        AUTH="true" if given.iam == "on" else "false",
        GATEWAY_PORT=str(given.port),
        MINISTACK_REGION="us-east-1",
        LAMBDA_EXECUTOR="docker",
        MINISTACK_DOCKER_TIMEOUT="120",  # s; the machine may be busy with a build
        LAMBDA_DOCKER_FLAGS="--security-opt no-new-privileges",  # not empty, or lambda_functions.py is not asked
    )
    sys.argv = sys.argv[:1]  # ministack has options of its own
    # Now, since ministack reads the variables above when it is imported.
    from ministack.app import main as serve

    from tests.emulator import (
        alarms,
        api_deployments,
        api_gateway,
        batch,
        cloudformation,
        dead_letters,
        event_sources,
        eventbridge,
        iam,
        lambda_functions,
        log_event_ids,
        log_streams,
        logs,
        redrive,
        s3,
        step_functions,
        streamed_answers,
    )

    iam.extend(given.usage)
    lambda_functions.extend(given.trust)
    for module in (
        log_streams,
        cloudformation,
        alarms,
        api_gateway,
        streamed_answers,
        api_deployments,
        batch,
        eventbridge,
    ):
        module.extend()
    for module in (event_sources, dead_letters, logs, log_event_ids, redrive, step_functions, s3):
        module.extend()
    serve()


if __name__ == "__main__":
    main()
