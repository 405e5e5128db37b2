import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilotlight.errors import InvalidInputError, PilotlightError, UnsupportedError
from pilotlight.local import intrinsics, template
from pilotlight.local.template import ApiRoute, FunctionSpec, GatewayResponse, Stack

REPOSITORY = Path(__file__).parents[3]
Load = Callable[[str], Stack]

MINIMAL = """
Resources:
  F:
    Type: AWS::Serverless::Function
    Properties:
      Handler: handlers.handle
      Events: {E: {Type: Api, Properties: {Path: /x, Method: get}}}
"""

COMPLETE = """
Parameters:
  Memory: {Type: Number, Default: 512}
  Stage: {Type: String, Default: live}
  Fast: {Type: String, Default: true}
  Unset: {Type: String}
Globals:
  Function:
    Timeout: 7
    MemorySize: 1024
    Layers: [!Ref Shared]
    LoggingConfig: {LogFormat: JSON}
    Environment: {Variables: {A: global, B: global}}
  Api:
    BinaryMediaTypes: [image~1png]
Resources:
  Api:
    Type: AWS::Serverless::Api
    Properties:
      StageName: !Ref Stage
      GatewayResponses:
        DEFAULT_5XX: {StatusCode: "599", ResponseTemplates: {application/json: "{}"}}
  F:
    Type: AWS::Serverless::Function
    Properties:
      Handler: handlers.handle
      MemorySize: !Ref Memory
      Layers: [!Ref Own, "arn:aws:lambda:eu-west-1:123456789012:layer:other:1"]
      Environment:
        Variables:
          B: own
          FAST: !Ref Fast
          TEXT: !Sub "${Stage}-${!Literal}-${Memory}"
          LOCAL: !Sub ["${Stage}-${x}", {x: 1}]
          BUCKET: !Sub "s3://${Bucket}"
          ARN: !GetAtt Bucket.Arn
          REGION: !Ref AWS::Region
          UNSET: !Ref Unset
          JOINED: {"Fn::Join": ["-", [a, b]]}
      Events:
        One: {Type: Api, Properties: {RestApiId: !Ref Api, Path: /x, Method: x-amazon-apigateway-any-method}}
        Two: {Type: Api, Properties: {RestApiId: !Ref Api, Path: "/x/{id}", Method: post}}
        Queue: {Type: SQS, Properties: {Queue: !GetAtt Queue.Arn}}
  OnlyQueue:
    Type: AWS::Serverless::Function
    Properties: {PackageType: Image, Events: {Q: {Type: SQS, Properties: {Queue: x}}}}
  Shared: {Type: AWS::Serverless::LayerVersion, Properties: {ContentUri: layers/shared}}
  Own: {Type: AWS::Serverless::LayerVersion, Properties: {ContentUri: layers/own}}
  Bucket: {Type: AWS::S3::Bucket}
"""

INCLUDED = (
    "{paths: {/x: {x-amazon-apigateway-any-method: {security: [{'Fn::If': [Asks, {key: []}, {Ref: 'AWS::NoValue'}]}], "
    "x-amazon-apigateway-integration: {type: aws_proxy, uri: {'Fn::Sub': 'arn:functions/${F.Alias}/invocations'}}}}, "
    "/y: {get: {x-amazon-apigateway-integration: {type: mock}}}}, x-amazon-apigateway-binary-media-types: ['*/*'], "
    "x-amazon-apigateway-gateway-responses: {THROTTLED: {statusCode: 429, responseTemplates: {application/json: '{}'}, "
    "responseParameters: {gatewayresponse.header.Retry-After: \"'1'\", gatewayresponse.querystring.a: b}}}}"
)
INCLUDE = "{Fn::Transform: {Name: AWS::Include, Parameters: {Location: documents/api.yaml}}}"
INCLUDING = f"""
Parameters:
  Auth: {{Type: String, Default: none}}
Mappings:
  Settings: {{Times: {{Seconds: 9}}, Names: {{Claim: ""}}}}
Conditions:
  Asks: !Equals [!Ref Auth, key]
  Counts: !Not [!Equals [!FindInMap [Settings, Names, Claim], ""]]
Globals:
  Function:
    Timeout: 7
    Environment: {{Variables: {{A: global}}}}
Resources:
  Api:
    Type: AWS::Serverless::Api
    Properties:
      StageName: prod
      DefinitionBody: {INCLUDE}
  F:
    Type: AWS::Serverless::Function
    IgnoreGlobals: [Environment]
    Properties:
      Handler: handlers.handle
      Environment:
        Variables:
          B: !FindInMap [Settings, Times, Seconds]
          C: !If [Counts, 1, 2]
          D: !FindInMap [Settings, Times, !Ref AWS::Region]
"""


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(text: str) -> Stack:
        path = tmp_path / "template.yaml"
        path.write_text(text)
        return template.load_stack(path)

    return load


def test_repository_template() -> None:
    stack = template.load_stack(REPOSITORY / "template.yaml")
    function = stack.functions["PredictFunction"]
    assert stack.root == REPOSITORY
    assert stack.stage == "prod"
    assert stack.binary_media_types == {"*/*"}
    assert function.handler == "functions.predict.handler.handle"
    assert function.memory_mb == 1769
    assert function.timeout_s == 28
    assert set(function.python_path) >= {REPOSITORY, REPOSITORY / "layers/core"}
    assert "PILOTLIGHT_STORE" not in function.environment  # it names a bucket that only a deploy makes
    assert ApiRoute("ANY", "/v2/models/{model}/infer", "PredictFunction") in stack.routes
    assert stack.gateway_responses["MISSING_AUTHENTICATION_TOKEN"].status == 404


def test_defaults_are_those_of_lambda_and_sam(load: Load, tmp_path: Path) -> None:
    stack = load(MINIMAL)
    assert stack.functions == {"F": FunctionSpec("F", "handlers.handle", 128, 3, {}, (tmp_path,))}
    assert stack.routes == (ApiRoute("GET", "/x", "F"),)
    assert (stack.stage, stack.binary_media_types, stack.gateway_responses) == ("Prod", frozenset(), {})


def test_globals_parameters_and_layers(load: Load, tmp_path: Path) -> None:
    stack = load(COMPLETE)
    function = stack.functions["F"]
    assert list(stack.functions) == ["F"]
    assert (function.memory_mb, function.timeout_s) == (512, 7)
    assert function.python_path == (tmp_path, tmp_path / "layers/shared", tmp_path / "layers/own")
    assert stack.routes == (ApiRoute("ANY", "/x", "F"), ApiRoute("POST", "/x/{id}", "F"))
    assert stack.stage == "live"
    assert stack.binary_media_types == {"image/png"}
    assert stack.gateway_responses == {"DEFAULT_5XX": GatewayResponse(599, "{}")}


def test_variables_that_need_a_deploy_are_left_out(load: Load) -> None:
    assert load(COMPLETE).functions["F"].environment == {
        "A": "global",
        "B": "own",
        "FAST": "true",
        "TEXT": "live-${Literal}-512",
        "LOCAL": "live-1",
        "AWS_LAMBDA_LOG_FORMAT": "JSON",
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not YAML: did not find expected node content in line 2"),
        ("", "is not a CloudFormation template"),
        ("- a", "is not a CloudFormation template"),
        ("Resources: []", "Resources: a mapping belongs here"),
        ("Resources: {}", "no function has an event of Type: Api"),
        ("Resources: {F: null}", "F: a mapping belongs here, not None"),
        (MINIMAL.replace("Handler: handlers.handle", "Runtime: python3.13"), "Handler of F: it is missing"),
        (MINIMAL.replace("handlers.handle", "7"), "F: Handler is 7; write"),
        (
            MINIMAL.replace("Handler:", "MemorySize: big\n      Handler:"),
            "MemorySize of F: 'big' is not a whole number",
        ),
        (MINIMAL.replace("Handler:", "Timeout: !Ref T\n      Handler:"), "Timeout of F: !Ref T is known only on AWS"),
        (MINIMAL.replace("Handler:", "Timeout: !Sub {}\n      Handler:"), "Timeout of F: !Sub {} is known only on AWS"),
        (MINIMAL.replace("Path: /x, ", ""), "Path of event E of F: it is missing"),
        (MINIMAL.replace("Path: /x", "Path: x"), "Path 'x' and Method 'get' are no route"),
        (MINIMAL.replace("{E:", "[E:").replace("get}}}", "get}}]"), "Events of F: a mapping belongs here"),
        (COMPLETE.replace("ContentUri: layers/own", "Description: x"), "ContentUri of Own: it is missing"),
        (MINIMAL.replace("Handler:", "Layers: x\n      Handler:"), "Layers of F: a list belongs here, not 'x'"),
        (COMPLETE.replace('"{}"}', "{}}"), "ResponseTemplates of DEFAULT_5XX: application/json is {}, not a text"),
        (COMPLETE.replace('"599"', "often"), "StatusCode of DEFAULT_5XX: 'often' is not a whole number"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(load: Load, text: str, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        load(text)


junk: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 7, 1.5, "", "text", [], ["a"], [[]], {}, {"a": 1}, {"Ref": "x"}, {"Fn::Sub": ["x"]}]
)


def places(node: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every node below `node`."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


@pytest.mark.parametrize("text", [COMPLETE, INCLUDING.replace(INCLUDE, INCLUDED)], ids=["complete", "documented"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # each example overwrites the one file
@given(st.data())
def test_junk_anywhere_is_read_or_refused_in_words(load: Load, text: str, data: st.DataObject) -> None:
    document = yaml.load(text, intrinsics.TemplateLoader)  # noqa: S506  # a SafeLoader
    load(json.dumps(document))
    *path, last = data.draw(st.sampled_from(list(places(document))))
    node = document
    for key in path:
        node = node[key]
    node[last] = data.draw(junk)
    try:
        load(json.dumps(document))
    except PilotlightError as exc:
        assert "template.yaml" in str(exc)  # noqa: PT017  # either outcome is right


def test_two_apis_are_not_built(load: Load) -> None:
    with pytest.raises(UnsupportedError, match="the APIs Api, Other"):
        load(COMPLETE + "  Other: {Type: AWS::Serverless::Api}\n")


def test_missing_template_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=f"Cannot read the template {tmp_path}/template.yaml: No such file"):
        template.load_stack(tmp_path / "template.yaml")


# --- parameters, conditions and an authorizer -------------------------------------------------------------------------

GUARDED = """
Parameters:
  Auth: {Type: String, Default: none}
  Claim: {Type: String, Default: ""}
Conditions:
  Asks: !Equals [!Ref Auth, jwt]
  Counts: !And [!Condition Asks, !Not [!Equals [!Ref Claim, ""]]]
  Either: !Or [!Condition Counts, !Equals [!Ref Auth, key]]
  OnAws: !Equals [!Ref AWS::Region, eu-west-1]
Resources:
  Api:
    Type: AWS::Serverless::Api
    Properties:
      StageName: prod
      DefinitionBody:
        components:
          securitySchemes:
            key: {type: apiKey}
            token: !If
              - Asks
              - x-amazon-apigateway-authorizer:
                  identityValidationExpression: ^Bearer
                  authorizerResultTtlInSeconds: 30
                  authorizerUri: !Sub "arn:aws:apigateway:${AWS::Region}:lambda:path/functions/${G.Arn}/invocations"
              - !Ref AWS::NoValue
        paths:
          /x:
            any:
              security: !If [Counts, [{token: [], key: []}], !If [Asks, [{token: []}], [{key: []}]]]
          /y: {any: {security: []}}
      GatewayResponses:
        UNAUTHORIZED: {StatusCode: 401, ResponseParameters: {Headers: {WWW-Authenticate: "'Bearer'"}}}
  F:
    Type: AWS::Serverless::Function
    Properties:
      Handler: handlers.handle
      Environment: {Variables: {A: !If [Counts, yes, no], B: !If [Either, 1, !Ref AWS::NoValue], C: !If [OnAws, 1, 2]}}
      Events:
        E: {Type: Api, Properties: {Path: /x, Method: get}}
  G:
    Type: AWS::Serverless::Function
    Properties: {Handler: handlers.guard, Timeout: 3}
"""


def guarded(tmp_path: Path, **parameters: str) -> Stack:
    path = tmp_path / "template.yaml"
    path.write_text(GUARDED)
    return template.load_stack(path, parameters)


def test_an_authorizer_is_found_where_the_parameters_ask_for_it(tmp_path: Path) -> None:
    assert guarded(tmp_path).authorizer is None
    assert set(guarded(tmp_path).functions) == {"F"}
    for more in ({}, {"Claim": "plan"}):
        stack = guarded(tmp_path, Auth="jwt", **more)
        assert stack.authorizer == template.AuthorizerSpec("G", frozenset({"/x"}), "^Bearer", 30, ("authorization",))
        assert stack.functions["G"].handler == "handlers.guard"


def test_conditions_that_parameters_decide_are_decided(tmp_path: Path) -> None:
    assert guarded(tmp_path).functions["F"].environment == {"A": "false"}
    assert guarded(tmp_path, Auth="key").functions["F"].environment == {"A": "false", "B": "1"}
    assert guarded(tmp_path, Auth="jwt", Claim="plan").functions["F"].environment == {"A": "true", "B": "1"}


def test_a_parameter_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="has no parameter Oauth"):
        guarded(tmp_path, Oauth="jwt")


@pytest.mark.parametrize(
    ("source", "headers"),
    [
        ("", ()),
        ("identitySource: method.request.header.Authorization", ("authorization",)),
        ("identitySource: 'method.request.header.X-Api-Key, method.request.header.Host'", ("x-api-key", "host")),
    ],
)
def test_a_request_authorizer_has_its_identity_sources(tmp_path: Path, source: str, headers: tuple[str, ...]) -> None:
    path = tmp_path / "template.yaml"
    path.write_text(
        GUARDED.replace("identityValidationExpression: ^Bearer", f"type: request\n                  {source}")
    )
    authorizer = template.load_stack(path, {"Auth": "jwt"}).authorizer
    assert authorizer == template.AuthorizerSpec("G", frozenset({"/x"}), None, 30, headers)


def test_an_identity_source_that_is_no_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "template.yaml"
    sent = "type: request\n                  identitySource: context.identity.sourceIp"
    path.write_text(GUARDED.replace("identityValidationExpression: ^Bearer", sent))
    with pytest.raises(UnsupportedError, match=r"context.identity.sourceIp' is no header"):
        template.load_stack(path, {"Auth": "jwt"})


def test_an_authorizer_that_is_no_function_of_the_template_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "template.yaml"
    path.write_text(GUARDED.replace("${G.Arn}", "${Other.Arn}"))
    with pytest.raises(InvalidInputError, match="names no function of this template"):
        template.load_stack(path, {"Auth": "jwt"})


def test_headers_of_gateway_responses_are_read(tmp_path: Path) -> None:
    assert guarded(tmp_path).gateway_responses["UNAUTHORIZED"].headers == (("www-authenticate", "Bearer"),)


# --- what a template includes and looks up ----------------------------------------------------------------------------


@pytest.fixture
def including(tmp_path: Path, load: Load) -> Stack:
    """Of a template that includes its API's document, from a path relative to the template."""
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "api.yaml").write_text(INCLUDED)
    return load(INCLUDING)


def test_routes_of_an_included_document_are_read(including: Stack) -> None:
    assert including.routes == (ApiRoute("ANY", "/x", "F"),)
    assert including.binary_media_types == {"*/*"}
    assert including.gateway_responses == {"THROTTLED": GatewayResponse(429, "{}", (("retry-after", "1"),))}


def test_an_included_document_is_as_if_it_was_written_in_the_template(including: Stack, load: Load) -> None:
    assert load(INCLUDING.replace(INCLUDE, INCLUDED)) == including


def test_mappings_are_looked_up_where_their_keys_are_known(including: Stack) -> None:
    assert including.functions["F"].environment == {"B": "9", "C": "2"}


def test_globals_that_a_function_ignores_are_not_its_own(including: Stack, load: Load) -> None:
    assert including.functions["F"].timeout_s == 7
    every = INCLUDING.replace(INCLUDE, INCLUDED).replace("[Environment]", '"*"')
    assert load(every).functions["F"].timeout_s == template.DEFAULT_TIMEOUT_S


def test_a_document_that_cannot_be_read_is_named(load: Load) -> None:
    with pytest.raises(InvalidInputError, match=r"includes documents/api.yaml, which cannot be read: No such file"):
        load(INCLUDING)


def test_a_document_that_lies_in_s3_is_not_read(load: Load) -> None:
    with pytest.raises(InvalidInputError, match="DefinitionBody: a mapping belongs here"):
        load(INCLUDING.replace("documents/api.yaml", "s3://bucket/api.yaml"))


def test_a_route_that_leads_to_no_function_of_the_template_is_refused(load: Load) -> None:
    with pytest.raises(InvalidInputError, match=r"x-amazon-apigateway-any-method /x: uri is .* names no function"):
        load(INCLUDING.replace(INCLUDE, INCLUDED.replace("${F.Alias}", "${Other.Arn}")))


def test_mappings_without_content_are_none() -> None:
    document = {"Mappings": None, "Resources": {"F": {"Fn::FindInMap": ["A", "B", "C"]}}}
    assert intrinsics.look_up_mappings(document, {}) == document


def test_the_bucket_that_tells_stacks_apart_on_aws_is_asked_of_no_event_here() -> None:
    stack = template.load_stack(REPOSITORY / "template.yaml")
    assert [rule.pattern for rule in stack.rules if "detail-type" in rule.pattern and "source" not in rule.pattern] == [
        {"detail-type": ["Pilotlight Inference"]}
    ]
