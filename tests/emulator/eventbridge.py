"""EventBridge: rules that invoke a function by its permission, asynchronously, as often as Lambda tries.

ministack's own rules ask no permission, and invoke a function once, however that ends.
"""

import json
from contextvars import ContextVar
from typing import Any

from ministack.services import eventbridge, lambda_svc

from tests.emulator.permissions import LOG, is_service_allowed

_rule: ContextVar[str] = ContextVar("rule", default="")  # the ARN of the rule whose target is invoked


def extend() -> None:
    """Add all of this to the running ministack."""
    eventbridge._invoke_target = _name_rule_for(eventbridge._invoke_target)
    eventbridge._dispatch_to_lambda = invoke_function


def _name_rule_for(invoke: Any) -> Any:  # noqa: ANN401 - ministack has no types
    def invoke_target(target: Any, event: Any, rule: dict[str, Any], *more: Any) -> None:  # noqa: ANN401
        _rule.set(rule["Arn"])
        invoke(target, event, rule, *more)

    return invoke_target


def invoke_function(arn: str, payload: str) -> None:
    """Invoke a function as a rule does."""
    function, config, name = lambda_svc._get_func_record_for_ref(arn)
    if function is None:
        LOG.error("The rule %s has no function %s to invoke", _rule.get(), name)
    elif is_service_allowed("events.amazonaws.com", function, _rule.get()):
        lambda_svc.invoke_async_with_retry(
            lambda_svc._execution_record_for_config(function, config), json.loads(payload)
        )
