"""Errors in the form that the Runtime API takes, under the names of AWS's client; each is also a line of the log."""

import importlib
import json
import sys
import traceback
from collections.abc import Callable
from typing import Any

ERROR_TYPE, ERROR_BODY = "Lambda-Runtime-Function-Error-Type", "Lambda-Runtime-Function-Error-Body"
BEFORE_SNAPSHOT_ERROR, AFTER_RESTORE_ERROR = "Runtime.BeforeSnapshotError", "Runtime.AfterRestoreError"

ErrorReport = dict[str, Any]


def load_handler(handler: str) -> Callable[..., Any]:
    """Load the function that `module.function` names; raises whatever its import raises."""
    module, _, function = handler.rpartition(".")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def report_error(exc: BaseException, error_type: str, message: str, request_id: str = "") -> ErrorReport:
    """Build an error report for the Runtime API; print it to stdout too, as AWS's client does."""
    stack = traceback.format_tb(exc.__traceback__)
    found = {"errorType": error_type, "errorMessage": message, "requestId": request_id, "stackTrace": stack}
    print(json.dumps({"level": "ERROR", **found}), flush=True)  # noqa: T201  # stdout is the function's log
    return found


def report_init_error(exc: Exception, handler: str) -> ErrorReport:
    """Report why a handler could not be loaded, under the names that AWS uses."""
    module, _, function = handler.rpartition(".")
    if not module or not function:
        return report_error(exc, "Runtime.MalformedHandlerName", f"Bad handler '{handler}': write module.function")
    if isinstance(exc, ImportError):
        return report_error(exc, "Runtime.ImportModuleError", f"Unable to import module '{module}': {exc}")
    if isinstance(exc, SyntaxError):
        return report_error(exc, "Runtime.UserCodeSyntaxError", f"Syntax error in module '{module}': {exc}")
    if isinstance(exc, AttributeError) and module in sys.modules and not hasattr(sys.modules[module], function):
        return report_error(exc, "Runtime.HandlerNotFound", f"Handler '{function}' missing on module '{module}'")
    return report_error(exc, type(exc).__name__, str(exc))
