"""API Gateway: an update changes the API that is there, and a stage answers by what was deployed to it.

ministack creates another API for a changed document and deletes the former one, so that URL, permissions and usage
plans lead nowhere until the update ends; and it answers by the newest document, before that is deployed. CloudFormation
keeps the API with its id (PutRestApi, mode=overwrite), and callers notice nothing until the stage has the next
deployment.
"""

import json
from typing import Any

from ministack.services import apigateway_v1 as gateway
from ministack.services.cloudformation import provisioners

DEPLOYED = (
    "_resources",
    "_authorizers_v1",
    "_models",
    "_request_validators",
)  # stores, by the API's id, of its document
_drafts: dict[str, dict[str, Any]] = {}  # by the API's id: what was imported, and is not deployed yet
_deployments: dict[str, dict[str, Any]] = {}  # by the deployment's id: what it answers by


def extend() -> None:
    """Add all of this to the running ministack."""
    handlers = provisioners._RESOURCE_HANDLERS
    api = handlers["AWS::ApiGateway::RestApi"]
    api["update"] = _update_api_with(api["create"], api["update"])
    gateway._create_deployment = _create_deployment_with(gateway._create_deployment)
    gateway._create_stage = _create_stage_with(gateway._create_stage)
    gateway._update_stage = _update_stage_with(gateway._update_stage)


def _update_api_with(create: Any, update: Any) -> Any:  # noqa: ANN401 - ministack has no types
    def update_api(api: str, old: Any, new: Any, stack: str, logical_id: str | None = None) -> Any:  # noqa: ANN401
        if new.get("Body") == old.get("Body"):
            return update(api, old, new, stack, logical_id)
        made, _ = create(logical_id or api, new, stack)
        _drafts[api] = {store: getattr(gateway, store).pop(made, {}) for store in DEPLOYED}
        gateway._gateway_responses[api] = gateway._gateway_responses.pop(made, {})  # ministack deploys them itself
        gateway._rest_apis[api] = {**gateway._rest_apis[made], "id": api}
        gateway._delete_rest_api(made)
        return api, provisioners._apigw_rest_api_attrs(api)

    return update_api


def _create_deployment_with(create: Any) -> Any:  # noqa: ANN401 - ministack has no types
    def create_deployment(api: str, data: Any) -> Any:  # noqa: ANN401 - ministack's own
        answer = create(api, data)
        current = {store: getattr(gateway, store).get(api, {}) for store in DEPLOYED}
        _deployments[json.loads(answer[2])["id"]] = _drafts.get(api, current)
        return answer

    return create_deployment


def _create_stage_with(create: Any) -> Any:  # noqa: ANN401 - ministack has no types
    def create_stage(api: str, data: Any) -> Any:  # noqa: ANN401 - ministack's own
        answer = create(api, data)
        _answer_by(api, data.get("deploymentId", ""))
        return answer

    return create_stage


def _update_stage_with(update: Any) -> Any:  # noqa: ANN401 - ministack has no types
    def update_stage(api: str, stage: str, data: Any) -> Any:  # noqa: ANN401 - ministack's own
        answer = update(api, stage, data)
        for change in data.get("patchOperations", []):
            if change["path"] == "/deploymentId":
                _answer_by(api, change["value"])
        return answer

    return update_stage


def _answer_by(api: str, deployment: str) -> None:
    """Put what was deployed in the place by which ministack answers; there is one stage per API here."""
    for store, deployed in _deployments.get(deployment, {}).items():
        stored = getattr(gateway, store)
        # Requests that run know authorizers of the former deployment.
        stored[api] = {**stored.get(api, {}), **deployed} if store == "_authorizers_v1" else deployed
