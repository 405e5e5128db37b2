"""IAM: conditions that ministack does not fill in, and a note of each judged call for tests/e2e/deploy/rights.py."""

import json
import threading
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from ministack.core import iam_actions, iam_evaluator

from tests.emulator.replacement import replace_everywhere

_note_lock = threading.Lock()
_usage: list[Path] = []  # the file of notes, if any
_judged: ContextVar[Any] = ContextVar("judged", default=None)  # the caller's own policies, in the call being judged


def extend(usage: Path | None) -> None:
    """Add all of this to the running ministack; `usage` is the file of notes, if any."""
    _fill_in_conditions()
    if usage is not None:
        _usage.append(usage)
        _note_judgements()


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
    replace_everywhere("eventbridge_resource_arns", list_buses, list_buses_of)


def _note_judgements() -> None:
    """Note who called what, and what was decided; a resource's own policy is evaluated apart, and counts in that."""
    evaluate, enforce = iam_evaluator.evaluate, iam_evaluator.enforce

    def evaluate_keeping(context: Any, *more: Any) -> Any:  # noqa: ANN401 - ministack has no types
        if _judged.get() is None:
            _judged.set(context)
        return evaluate(context, *more)

    def enforce_noting(*given: Any, **options: Any) -> Any:  # noqa: ANN401 - ministack has no types
        _judged.set(None)
        refused = enforce(*given, **options)
        if (context := _judged.get()) is not None:
            write_note(context, allowed=refused is None)
        return refused

    iam_evaluator.evaluate = evaluate_keeping
    replace_everywhere("enforce", enforce, enforce_noting)


def write_note(context: Any, *, allowed: bool) -> None:  # noqa: ANN401 - ministack has no types
    """Note a call that was judged, where notes are asked for."""
    call = {
        "principal": context.principal_arn,
        "action": context.action,
        "resource": context.resource_arn,
        "allowed": allowed,
    }
    for usage in _usage:
        with _note_lock, usage.open("a") as notes:
            notes.write(json.dumps(call) + "\n")
