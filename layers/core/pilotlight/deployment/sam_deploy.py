"""Run `sam deploy`, and tell meanwhile how far CloudFormation is.

What SAM writes is kept in a file; of a failure one sentence is told, of the first resource that failed.
"""

import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pilotlight.deployment.stack import describe_progress, explain_failure, find_last_event, list_events
from pilotlight.errors import UnavailableError

CAPABILITIES = ("CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND")
TAG = "application=pilotlight"
POLL_S = 3.0  # s between two looks at the stack; CloudFormation allows some requests a second
SAM_ERROR = re.compile(r"^Error: (.*?)(?:\n\s*\n|\nTraceback|\Z)", re.MULTILINE | re.DOTALL)
WAITER = re.compile(r"^.*?Waiter \w+ failed: .*? Reason: ", re.DOTALL)

Progress = Callable[[str], None]


@dataclass(frozen=True)
class SamCommand:
    """The SAM CLI at work on a stack; `log` gets all that it writes."""

    sam: str
    stack: str
    log: Path
    cloudformation: Any  # boto3 ships no types

    def deploy(self, template: Path, parameters: Mapping[str, str], progress: Progress) -> None:
        """Deploy a built template; parameters that are not given keep their values, or take the template's.

        Raises `UnavailableError` with the reason of the first resource that failed.
        """
        words = ["deploy", "--template-file", str(template), "--stack-name", self.stack, "--resolve-s3",
                 "--s3-prefix", self.stack, "--capabilities", *CAPABILITIES, "--tags", TAG,
                 "--no-confirm-changeset", "--no-fail-on-empty-changeset"]  # fmt: skip
        if parameters:
            words += ["--parameter-overrides", *(format_parameter(*each) for each in parameters.items())]
        before = find_last_event(self.cloudformation, self.stack)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("w") as output:
            code = self._follow(words, output, before, progress)
        if code:
            reason = explain_failure(list_events(self.cloudformation, self.stack, before)) or self._read_error()
            raise UnavailableError(f"The deploy of {self.stack} failed. {reason} All that SAM wrote: {self.log}")

    def _follow(self, words: Sequence[str], output: Any, before: datetime, progress: Progress) -> int:  # noqa: ANN401 - a file
        """Run SAM where no samconfig.toml adds options of its own, and return its exit code."""
        environment = {**os.environ, "SAM_CLI_TELEMETRY": "0", "SAM_CLI_POLL_DELAY": "5"}
        try:
            process = subprocess.Popen(
                [self.sam, *words], cwd=self.log.parent, env=environment, stdout=output, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except OSError as exc:
            raise UnavailableError(f"{self.sam} cannot be run: {exc.strerror}.") from exc
        with process:
            while (code := wait_for(process, POLL_S)) is None:
                progress(describe_progress(self.cloudformation, self.stack, before) or "uploading")
        return code

    def _read_error(self) -> str:
        """Read what SAM itself says of a failure before any resource was touched, such as of its upload."""
        log = self.log.read_text(errors="replace")
        said = SAM_ERROR.findall(log) or log.strip().splitlines()[-1:] or ["SAM does not say why"]
        text = " ".join(WAITER.sub("", said[-1]).split())
        return f"{text.rstrip('.')}."


def wait_for(process: "subprocess.Popen[bytes]", seconds: float) -> int | None:
    """Wait for a process to end, for some seconds; return its exit code, or None while it runs."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def format_parameter(name: str, value: str) -> str:
    """Format a parameter as SAM parses it again: in quotes, since values may have blanks."""
    escaped = value.replace('"', '\\"')
    return f'{name}="{escaped}"'
