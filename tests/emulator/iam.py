"""IAM: conditions that ministack does not fill in, and a note of each judged call, by which `usage.py` reports."""

import json
import sys
import threading
from pathlib import Path
from typing import Any

from ministack.core import iam_actions, iam_evaluator

_note_lock = threading.Lock()


def extend(usage: Path | None) -> None:
    """Add all of this to the running ministack; `usage` is the file of notes, if any."""
    _fill_in_conditions()
    if usage is not None:
        iam_evaluator.evaluate = _evaluate_with(iam_evaluator.evaluate, usage)


def _fill_in_conditions() -> None:
    """Resolve the source and the type of an event that is put, and say that calls come over TLS.

    ministack gives PutEvents no conditions of its own, and it is reached over loopback without TLS, where AWS has no
    other way in.
    """
    resolve, list_buses = iam_evaluator._resolve_condition_key, iam_actions.eventbridge_resource_arns
    entry: dict[str, str] = {}  # of the PutEvents call that is being judged

    def list_buses_of(body: bytes, region: str, account_id: str) -> Any:  # noqa: ANN401 - ministack has no types
        first = (json.loads(body or b"{}").get("Entries") or [{}])[0]
        entry.update({"events:source": first.get("Source"), "events:detail-type": first.get("DetailType")})
        return list_buses(body, region, account_id)

    def resolve_condition_key(key: str, context: Any) -> Any:  # noqa: ANN401 - ministack has no types
        if key.lower() == "aws:securetransport":
            return "true"
        return entry[key.lower()] if key.lower() in entry else resolve(key, context)

    iam_evaluator._resolve_condition_key = resolve_condition_key
    for module in list(sys.modules.values()):  # it is imported by name elsewhere
        if getattr(module, "eventbridge_resource_arns", None) is list_buses:
            module.eventbridge_resource_arns = list_buses_of  # type: ignore[attr-defined] # of whichever module


def _evaluate_with(evaluate: Any, usage: Path) -> Any:  # noqa: ANN401 - ministack has no types
    """Note who called what, and what was decided."""

    def evaluate_noting(context: Any, *more: Any) -> Any:  # noqa: ANN401 - ministack has no types
        result = evaluate(context, *more)
        call = {
            "principal": context.principal_arn,
            "action": context.action,
            "resource": context.resource_arn,
            "decision": result.decision,
        }
        with _note_lock, usage.open("a") as notes:
            notes.write(json.dumps(call) + "\n")
        return result

    return evaluate_noting
