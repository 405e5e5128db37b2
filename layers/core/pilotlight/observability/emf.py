"""CloudWatch metrics, printed as lines of the embedded metric format: no call, no permission, no wait.

A line is JSON: its `_aws` field lists which of its fields are metrics, and under which dimensions. A metric is billed
by its name and its dimensions' values, so dimensions have few values; all else is a field (infra/decisions/0035).
Source of the form: Amazon CloudWatch, embedded metric format specification.
"""

import os
import sys
import time
from collections.abc import Mapping, Sequence

import msgspec

NAMESPACE = "Pilotlight"
FUNCTION = os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "")  # the dimension that distinguishes stacks, too
STANDARD_OUTPUT = 1

Directive = dict[str, object]


def count(name: str, properties: Mapping[str, object] | None = None, **dimensions: str) -> None:
    """Add one to the metric `name`, once under the function's name, and once under it with these dimensions.

    Without the function, two stacks of an account would count together.

    `properties` are further fields of the same log line, and make no metric of their own.
    """
    dimension_sets = [["function"], ["function", *dimensions]] if dimensions else [["function"]]
    metadata = {
        "Timestamp": time.time_ns() // 1_000_000,
        "CloudWatchMetrics": [build_directive([name], dimension_sets, "Count")],
    }
    line = {**(properties or {}), "_aws": metadata, "function": FUNCTION or "local", **dimensions, name: 1}
    sys.stdout.write(msgspec.json.encode(line, enc_hook=str).decode() + "\n")
    sys.stdout.flush()


def build_directive(
    names: Sequence[str], dimension_sets: Sequence[Sequence[str]], unit: str | None = None
) -> Directive:
    """Build the directive that makes metrics of these fields, under each of these sets of dimensions."""
    metrics = [{"Name": name, "Unit": unit} if unit else {"Name": name} for name in names]
    return {"Namespace": NAMESPACE, "Dimensions": dimension_sets, "Metrics": metrics}


def write_line(line: str) -> None:
    """Write lines about calls to the function's log; outside Lambda, where standard output is for results, do nothing.

    A single write, so that threads do not mix, and not through sys.stdout, whose two layers take as long as a line
    does. Lambda's runtime client leaves nothing in their buffers.
    """
    if FUNCTION:
        os.write(STANDARD_OUTPUT, line.encode())
