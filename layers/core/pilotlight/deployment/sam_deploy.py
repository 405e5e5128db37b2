"""Run `sam deploy` and `sam delete`, and tell meanwhile how far CloudFormation is.

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

from pilotlight.deployment.stack import BEGINNING, explain_failure, list_events
from pilotlight.errors import PilotlightError, UnavailableError

CAPABILITIES = ("CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND")
TAG = "application=pilotlight"
POLL_S = 3.0  # s between two looks at the stack; CloudFormation allows some requests a second
SAM_ERROR = re.compile(r"^Error: (.*?)(?:\n\s*\n|\Z)", re.MULTILINE | re.DOTALL)
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
        self._run(words, progress, "The deploy")

    def delete(self, progress: Progress) -> None:
        """Delete the stack and the code that was uploaded for it; raise `UnavailableError` with the reason."""
        self._run(["delete", "--stack-name", self.stack, "--no-prompts"], progress, "The removal")

    def _run(self, words: Sequence[str], progress: Progress, what: str) -> None:
        before = self._find_last_event()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("w") as output:
            code = self._follow(words, output, before, progress)
        if code:
            reason = explain_failure(list_events(self.cloudformation, self.stack, before)) or self._read_error()
            raise UnavailableError(f"{what} of {self.stack} failed. {reason} All that SAM wrote: {self.log}")

    def _find_last_event(self) -> datetime:
        """Find the time of the stack's last event, by AWS's clock, which may differ from this machine's."""
        return max((one.at for one in list_events(self.cloudformation, self.stack)), default=BEGINNING)

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
                progress(self._describe_progress(before))
        return code

    def _describe_progress(self, before: datetime) -> str:
        """Describe how far the stack is: how many resources are done, and what is under way."""
        try:
            events = list_events(self.cloudformation, self.stack, before)
        except PilotlightError:  # of one look; the next one, or SAM, will say what is wrong
            return "waiting for CloudFormation"
        if not events:
            return "uploading"
        states = {(one.stack, one.logical_id): one.status for one in events}
        done = sum(status.endswith("_COMPLETE") for status in states.values())
        return f"{done} resources done, {events[-1].logical_id} {events[-1].status.lower().replace('_', ' ')}"

    def _read_error(self) -> str:
        """Read what SAM itself says of a failure before any resource was touched, such as of its upload."""
        said = SAM_ERROR.findall(self.log.read_text(errors="replace"))
        text = " ".join(WAITER.sub("", said[-1]).split()) if said else "SAM does not say why"
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
