"""Generate infra/api.yaml, the API's document for API Gateway, from the table of routes.

template.yaml includes the document, which may refer to its parameters and conditions. CloudFormation reads an included
file without YAML tags, so intrinsic functions have their long form. `security` is always a list, which the SAM CLI
requires where it resolves no conditions; AWS::NoValue leaves it empty, and an empty list requires nothing.
"""

import json
from typing import Any, NamedTuple

import yaml

from pilotlight.api.routes import GENERATE, PREDICT, ROUTES, Route
from pilotlight.contracts.scopes import Scope

HEADER = "# Generated from layers/core/pilotlight/api/routes.py; change that, and run `make routes`.\n"
NO_VALUE = {"Ref": "AWS::NoValue"}
LAMBDA_URI = "arn:${AWS::Partition}:apigateway:${AWS::Region}:lambda:path"
INVOKE_URI = f"{LAMBDA_URI}/2015-03-31/functions/${{%s}}/invocations"
STREAM_URI = f"{LAMBDA_URI}/2021-11-15/functions/${{%s}}/response-streaming-invocations"
STREAM_MS = 900_000  # the longest that the gateway allows an answer that it passes on; the function's Timeout is less
# Published versions of these functions answer; of the others, the latest code does.
ALIASES = {name: f"{name}.Alias" for name in (PREDICT, GENERATE)}
# The name of the security scheme that asks the authorizer, by what the authorizer checks.
KEY_SCHEME, TOKEN_SCHEME, METER_SCHEME = "key", "token", "meter"
BEARER_PATTERN = r"^[Bb]earer [A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$"
ANSWER_TTL_S = 60  # an expired token is accepted for as long

GATEWAY_MESSAGE = "$context.error.messageString"  # the gateway's own sentence, in quotes


class ErrorResponse(NamedTuple):
    """An error that the gateway itself returns, with our sentence, or with its own if that is None."""

    kind: str
    sentence: str | None = None
    status: int | None = None
    header: tuple[str, str] | None = None
    header_condition: str = ""  # a condition of template.yaml, without which the header is not sent


ERROR_RESPONSES = (
    ErrorResponse("DEFAULT_4XX"),
    ErrorResponse("DEFAULT_5XX"),
    ErrorResponse(
        "UNAUTHORIZED",
        "Send a key or token that is valid, header Authorization: Bearer KEY; `pilotlight keys create` creates keys.",
        401,
        ("WWW-Authenticate", "Bearer"),
    ),
    ErrorResponse(
        "ACCESS_DENIED",
        "The key, token or signature has not the scope of this route; GET /openapi.json says which one that is.",
        403,
    ),
    ErrorResponse(
        "AUTHORIZER_FAILURE",
        "Keys and tokens cannot be checked at the moment: the store or the issuer does not answer; ask again soon.",
        503,
        ("Retry-After", "5"),
    ),
    ErrorResponse(
        "INVALID_API_KEY",
        "The API Gateway key that meters this key or token is disabled, or in no usage plan of this API.",
        403,
    ),
    ErrorResponse("THROTTLED", None, 429, ("Retry-After", "1")),
    ErrorResponse(
        "REQUEST_TOO_LARGE",
        "The request is too large: the gateway takes 10,485,760 bytes, the function 6,291,456 as an event, which is a "
        "body of about 4,700,000. Send fewer items at once.",
        413,
    ),
    # REST APIs answer a path that they do not have with this; with Auth=iam, a request without a signature too, and
    # then the header tells a client what to do.
    ErrorResponse(
        "MISSING_AUTHENTICATION_TOKEN",
        "There is no such route; GET /docs lists those that there are. With Auth=iam, it may lack a signature.",
        404,
        header=("WWW-Authenticate", "AWS4-HMAC-SHA256"),
        header_condition="UsesIamAuth",
    ),
)


class _Inline(dict[str, Any]):
    """A mapping that is written on one line."""


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401 - anything that YAML represents
        return True


_Dumper.add_representer(
    _Inline, lambda dumper, data: dumper.represent_mapping("tag:yaml.org,2002:map", data, flow_style=True)
)


def encode_gateway_document() -> bytes:
    """Encode the document as it is committed."""
    text = yaml.dump(build_gateway_document(), Dumper=_Dumper, sort_keys=False, width=10_000)
    return (HEADER + text).encode()


def build_gateway_document() -> dict[str, Any]:
    """Build the whole document; the gateway accepts every verb of a path, and the function refuses unknown ones."""
    return {
        "openapi": "3.0.1",
        "info": {"title": {"Ref": "AWS::StackName"}, "version": "1"},
        # What a caller sends as an API key of the gateway counts for nothing: the authorizer says which key meters him.
        "x-amazon-apigateway-api-key-source": "AUTHORIZER",
        "x-amazon-apigateway-policy": build_choice("IsPrivate", build_private_policy(), NO_VALUE),
        # Every body arrives as base64: tritonclient sends tensors without a Content-Type.
        "x-amazon-apigateway-binary-media-types": ["*/*"],
        "x-amazon-apigateway-gateway-responses": {each.kind: build_error_response(each) for each in ERROR_RESPONSES},
        "components": {"securitySchemes": build_security_schemes()},
        "paths": {route.path: build_path_item(route) for route in ROUTES},
    }


def build_choice(condition: str, then: object, otherwise: object) -> _Inline:
    """Choose by a condition of template.yaml."""
    return _Inline({"Fn::If": [condition, then, otherwise]})


def build_private_policy() -> dict[str, Any]:
    """Allow requests through the VPC endpoint, and no others."""
    invoke = {"Principal": "*", "Action": "execute-api:Invoke", "Resource": "execute-api:/*"}
    elsewhere = {"StringNotEquals": {"aws:SourceVpce": {"Fn::FindInMap": ["Settings", "Network", "VpcEndpoint"]}}}
    return {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", **invoke}, {"Effect": "Deny", **invoke, "Condition": elsewhere}],
    }


def build_error_response(error: ErrorResponse) -> dict[str, Any]:
    """Build an error's body, with status and header: `message` alone, which every client shows.

    openai reads `error.message`, and `message` where there is no `error`; tritonclient reads an `error` that is a text,
    and shows the whole body where there is none. So a body with a text as its `error` is silent in openai.
    """
    sentence = GATEWAY_MESSAGE if error.sentence is None else json.dumps(error.sentence)
    body = f'{{"message": {sentence}}}'
    response: dict[str, Any] = {"responseTemplates": {"application/json": body}}
    if error.status is not None:
        response["statusCode"] = error.status
    if error.header is not None:
        name, value = error.header
        parameters = {f"gatewayresponse.header.{name}": f"'{value}'"}
        condition = error.header_condition
        response["responseParameters"] = build_choice(condition, parameters, NO_VALUE) if condition else parameters
    return response


def build_security_schemes() -> dict[str, Any]:
    """Build the security schemes that routes may require: a key, a token, a signature, and a meter beside those."""
    header = {"type": "apiKey", "name": "Authorization", "in": "header"}
    return {
        METER_SCHEME: {"type": "apiKey", "name": "x-api-key", "in": "header"},
        "signature": header | {"x-amazon-apigateway-authtype": "awsSigv4"},
        TOKEN_SCHEME: build_choice("UsesJwt", header | build_token_authorizer(), NO_VALUE),
        KEY_SCHEME: build_choice("UsesKeys", header | build_key_authorizer(), NO_VALUE),
    }


def build_token_authorizer() -> dict[str, Any]:
    """Build the authorizer of tokens, whose answers the gateway keeps by the header."""
    return {
        "x-amazon-apigateway-authtype": "custom",
        "x-amazon-apigateway-authorizer": {
            "type": "token",
            "identityValidationExpression": BEARER_PATTERN,  # other values get 401 without a call of the function
            "authorizerResultTtlInSeconds": ANSWER_TTL_S,
            "authorizerUri": {"Fn::Sub": INVOKE_URI % "AuthorizeFunction.Arn"},
        },
    }


def build_key_authorizer() -> dict[str, Any]:
    """Build the authorizer of keys, which may come in either of two headers.

    The gateway keeps answers by all its identity sources together, and answers 401 by itself where one is missing. So
    it keeps none (the function does), or it keeps those of one header and refuses the other.
    """
    cache_s = {"Fn::If": ["CachesKeys", ANSWER_TTL_S, 0]}
    source = {"Fn::If": ["CachesKeys", "method.request.header.Authorization", NO_VALUE]}
    return {
        "x-amazon-apigateway-authtype": "custom",
        "x-amazon-apigateway-authorizer": {
            "type": "request",
            "identitySource": source,
            "authorizerResultTtlInSeconds": cache_s,
            "authorizerUri": {"Fn::Sub": INVOKE_URI % "AuthorizeFunction.Arn"},
        },
    }


def build_path_item(route: Route) -> dict[str, Any]:
    """Build one path: any verb goes to its function, once the caller has the credentials that the scope requires."""
    method = {
        "security": build_security(route.scope),
        "responses": _Inline(),
        "x-amazon-apigateway-integration": _Inline(build_integration(route)),
    }
    return {"x-amazon-apigateway-any-method": method}


def build_integration(route: Route) -> dict[str, Any]:
    """Build the call of a route's function.

    The gateway's own word for streaming is STREAM, as it is written here. An event of type Api in a template has
    another, RESPONSE_STREAM, and SAM takes STREAM there for "buffered" without a word.
    """
    target = ALIASES.get(route.function, f"{route.function}.Arn")
    uri = (STREAM_URI if route.streams else INVOKE_URI) % target
    integration: dict[str, Any] = {"httpMethod": "POST", "type": "aws_proxy", "uri": {"Fn::Sub": uri}}
    if route.streams:
        integration |= {"responseTransferMode": "STREAM", "timeoutInMillis": STREAM_MS}
    return integration


def build_security(scope: Scope) -> list[Any]:
    """Build the security of a route by its scope and the parameter Auth; `open` requires nothing for `infer`."""
    signature: dict[str, list[str]] = {"signature": []}
    token = {"Fn::If": ["UsesTokenMeter", {TOKEN_SCHEME: [], METER_SCHEME: []}, {TOKEN_SCHEME: []}]}
    key: dict[str, Any] = {KEY_SCHEME: [], METER_SCHEME: []}
    if scope == "infer":
        key = {"Fn::If": ["IsOpen", NO_VALUE, key]}
    return [build_choice("UsesIamAuth", signature, {"Fn::If": ["UsesJwt", token, key]})]
