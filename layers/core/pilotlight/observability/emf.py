"""Numbers for CloudWatch, printed as lines of its embedded metric format: no call, no permission, no wait.

A line is JSON: under `_aws` it says which of its fields are metrics, under which dimensions. A metric is paid by its
name and its dimensions' values, so a dimension is what is few; all else is a field (infra/decisions/0035).
Source of the form: Amazon CloudWatch, embedded metric format specification.
"""

import os
import sys
import time
from collections.abc import Mapping, Sequence

import msgspec

NAMESPACE = "Pilotlight"
FUNCTION = os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "")  # the dimension that tells stacks apart, too
STANDARD_OUTPUT = 1

Directive = dict[str, object]


def count(name: str, properties: Mapping[str, object] | None = None, **dimensions: str) -> None:
    """Add one to the metric `name`, once under these dimensions and once under the function's name.

    `properties` stand in the same line of the log, for whoever reads it, and make no metric of their own.
    """
    dimension_sets = [["function"], [*dimensions]] if dimensions else [["function"]]
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
    """What makes metrics of these fields, under each of these sets of dimensions."""
    metrics = [{"Name": name, "Unit": unit} if unit else {"Name": name} for name in names]
    return {"Namespace": NAMESPACE, "Dimensions": dimension_sets, "Metrics": metrics}


def write_line(line: str) -> None:
    """Whole lines about calls to standard output, which is a function's log; elsewhere it is for results, so nothing.

    By one write, so that threads do not mix, past sys.stdout, whose two layers take as long as a line does. Lambda's
    runtime client keeps nothing back in them.
    """
    if FUNCTION:
        os.write(STANDARD_OUTPUT, line.encode())
