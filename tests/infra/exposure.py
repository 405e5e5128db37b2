"""What is open, and what is kept for how long, read from the templates: rules, and for each what breaks it."""

import re
from collections.abc import Iterator

from pilotlight.api.routes import ROUTES, SCOPES
from pilotlight.contracts.scopes import ALL_SCOPES
from tests.infra.templates import Change, Rule, Template, Templates, changed

MAX_DEFAULT_RATE = 50  # requests per second: tens, as a small team would choose
PUBLIC = {"PILOTLIGHT_SIGNING_KEY"}  # the public half
SETTING_OF_DAYS = {"Fn::FindInMap": ["Settings", "Retention", "LogDays"]}
LOGGED = {
    "requestId", "xrayTraceId", "requestTimeEpoch", "identity.sourceIp", "identity.apiKeyId", "identity.userArn",
    "authorizer.tenant",
    "httpMethod", "path", "resourcePath", "status", "responseLatency", "integrationLatency", "responseLength",
    "error.responseType", "integration.error",
}  # fmt: skip


def api(templates: Templates) -> Template:
    properties: Template = templates["api"]["Resources"]["Api"]["Properties"]
    return properties


def the_bucket_is_private_and_kept(templates: Templates) -> Iterator[str]:
    bucket = templates["api"]["Resources"]["ModelBucket"]
    if (bucket.get("DeletionPolicy"), bucket.get("UpdateReplacePolicy")) != ("RetainExceptOnCreate", "Retain"):
        yield "the bucket goes with the stack"
    properties = bucket["Properties"]
    if list(properties.get("PublicAccessBlockConfiguration", {}).values()) != [True] * 4:
        yield "the bucket may be made public"
    if "BucketEncryption" not in properties or properties.get("VersioningConfiguration") != {"Status": "Enabled"}:
        yield "the bucket is not encrypted, or forgets at once"


def the_bucket_asks_for_tls(templates: Templates) -> Iterator[str]:
    policy = templates["api"]["Resources"]["ModelBucketPolicy"]["Properties"]["PolicyDocument"]
    over_tls = {"Bool": {"aws:SecureTransport": "false"}}
    if not any(one["Effect"] == "Deny" and one.get("Condition") == over_tls for one in policy["Statement"]):
        yield "the bucket answers without TLS"


def no_body_is_logged(templates: Templates) -> Iterator[str]:
    for settings in api(templates)["MethodSettings"]:
        if settings["DataTraceEnabled"] is not False or settings["LoggingLevel"] != "OFF":
            yield "the gateway logs bodies"
    told = api(templates)["AccessLogSetting"]["Fn::If"][1]["Format"]
    said = {word.strip('",}') for word in told.replace("$context.", "\n$").split("\n") if word.startswith("$")}
    if beyond := {word[1:].split('"')[0] for word in said} - LOGGED:
        yield f"the gateway logs {beyond}"


def every_route_asks_for_what_the_mode_says(templates: Templates) -> Iterator[str]:
    paths = api(templates)["DefinitionBody"]["paths"]
    if strays := SCOPES.keys() ^ paths.keys():
        yield f"the table of routes and paths of the Api differ in {sorted(strays)}"
    key: Template = {"key": [], "meter": []}
    signed: Template = {"signature": []}
    token = {"Fn::If": ["UsesTokenMeter", {"token": [], "meter": []}, {"token": []}]}
    infer = {"Fn::If": ["IsOpen", {"Ref": "AWS::NoValue"}, key]}
    asked = {
        scope: {"Fn::If": ["UsesIamAuth", signed, {"Fn::If": ["UsesJwt", token, infer if scope == "infer" else key]}]}
        for scope in ALL_SCOPES
    }
    for path, item in paths.items():
        if item["x-amazon-apigateway-any-method"]["security"] != [asked.get(SCOPES.get(path, "admin"))]:
            yield f"{path} asks for something else than its scope does"


def meters_open_nothing(templates: Templates) -> Iterator[str]:
    """A key of API Gateway, such as a tenant's, counts requests; what a caller sends as one is not even read."""
    document = api(templates)["DefinitionBody"]
    if document["x-amazon-apigateway-api-key-source"] != "AUTHORIZER":
        yield "callers name the key of API Gateway that meters them"
    for path, item in document["paths"].items():
        for need in requirements(item["x-amazon-apigateway-any-method"]["security"]):
            if "meter" in need and not need.keys() & {"key", "token"}:
                yield f"{path} opens to a key of API Gateway"


def requirements(security: object) -> Iterator[Template]:
    """Every requirement that some mode has."""
    for one in security if isinstance(security, list) else [security]:
        if isinstance(one, dict) and "Fn::If" in one:
            yield from requirements(one["Fn::If"][1:])
        elif isinstance(one, dict) and "Ref" not in one:
            yield one


def the_default_asks_for_keys(templates: Templates) -> Iterator[str]:
    parameter = templates["api"]["Parameters"]["Auth"]
    if (parameter["Default"], parameter["AllowedValues"]) != ("keys", ["keys", "iam", "jwt", "open"]):
        yield "the default deploy does not ask for keys"
    if templates["api"]["Conditions"].get("IsOpen") != {"Fn::Equals": [{"Ref": "Auth"}, "open"]}:
        yield "inference is open without Auth=open"
    if templates["api"]["Parameters"]["RateLimit"]["Default"] > MAX_DEFAULT_RATE:
        yield "the default lets a flood through"


def every_route_leads_to_its_function(templates: Templates) -> Iterator[str]:
    for route in ROUTES:
        item = api(templates)["DefinitionBody"]["paths"].get(route.path, {}).get("x-amazon-apigateway-any-method", {})
        uri = item.get("x-amazon-apigateway-integration", {}).get("uri", {}).get("Fn::Sub", "")
        if f"functions/${{{route.function}." not in uri:
            yield f"{route.path} does not lead to {route.function}"


def the_gateway_alone_may_call_what_answers_it(templates: Templates) -> Iterator[str]:
    allowed = {
        str(resource["Properties"]["FunctionName"]["Ref"]).removesuffix(".Alias"): resource["Properties"]
        for resource in templates["api"]["Resources"].values()
        if resource["Type"] == "AWS::Lambda::Permission"
        and resource["Properties"]["Principal"] == "apigateway.amazonaws.com"
    }
    if strays := {route.function for route in ROUTES} ^ (allowed.keys() - {"AuthorizeFunction"}):
        yield f"the gateway may not call just the functions of its routes: {sorted(strays)}"
    for name, properties in allowed.items():
        if ":${Api}/" not in properties.get("SourceArn", {}).get("Fn::Sub", ""):
            yield f"every API may call {name}"


def keys_are_checked_before_they_count(templates: Templates) -> Iterator[str]:
    schemes = api(templates)["DefinitionBody"]["components"]["securitySchemes"]
    condition, scheme, otherwise = schemes.get("key", {}).get("Fn::If", (None, {}, None))
    authorizer = scheme.get("x-amazon-apigateway-authorizer", {})
    if condition != "UsesKeys" or otherwise != {"Ref": "AWS::NoValue"} or authorizer.get("type") != "request":
        yield "there is no authorizer where keys are asked for"
    if "${AuthorizeFunction.Arn}" not in authorizer.get("authorizerUri", {}).get("Fn::Sub", ""):
        yield "somebody else checks the keys"
    condition, cached_s, uncached_s = authorizer.get("authorizerResultTtlInSeconds", {}).get("Fn::If", ("", 3600, 3600))
    if condition != "CachesKeys" or cached_s > 60 or uncached_s != 0:
        yield "a revoked key goes on for long"
    sources = ["CachesKeys", "method.request.header.Authorization", {"Ref": "AWS::NoValue"}]
    if authorizer.get("identitySource", {}).get("Fn::If") != sources:
        yield "the gateway refuses keys that come in the other header, or keeps an answer for other keys"
    if templates["api"]["Mappings"]["Settings"]["Keys"]["GatewayCache"] != "off":
        yield "keys in the header x-api-key are refused by default"
    if templates["api"]["Resources"]["AuthorizeFunction"].get("Condition") != "UsesAuthorizer":
        yield "the authorizer is not there where it is asked"


def tokens_are_checked_before_they_count(templates: Templates) -> Iterator[str]:
    schemes = api(templates)["DefinitionBody"]["components"]["securitySchemes"]
    condition, scheme, otherwise = schemes.get("token", {}).get("Fn::If", (None, {}, None))
    authorizer = scheme.get("x-amazon-apigateway-authorizer", {})
    if condition != "UsesJwt" or otherwise != {"Ref": "AWS::NoValue"} or authorizer.get("type") != "token":
        yield "there is no authorizer where tokens are asked for"
    if "${AuthorizeFunction.Arn}" not in authorizer.get("authorizerUri", {}).get("Fn::Sub", ""):
        yield "somebody else checks the tokens"
    if authorizer.get("authorizerResultTtlInSeconds", 300) > 60:
        yield "a token goes on for more than a minute after it has expired"
    rules = templates["api"]["Rules"].get("TokensHaveAnIssuer", {}).get("Assertions", [])
    needed = {name for name in ("JwtIssuer", "JwtAudience") if f"'{name}'" in str(rules)}
    if needed != {"JwtIssuer", "JwtAudience"}:
        yield f"of issuer and audience only {needed or 'nothing'} must be given"
    for name in ("JwtIssuer", "JwtKeys"):
        if templates["api"]["Parameters"][name].get("AllowedPattern") != "(https://.+)?":
            yield f"{name} may be read without TLS"


def a_private_api_answers_its_endpoint_alone(templates: Templates) -> Iterator[str]:
    policy = api(templates)["DefinitionBody"].get("x-amazon-apigateway-policy", {"Fn::If": ["", {}]})["Fn::If"]
    denied = [one for one in policy[1].get("Statement", []) if one["Effect"] == "Deny"]
    if policy[0] != "IsPrivate" or not any("aws:SourceVpce" in str(one.get("Condition")) for one in denied):
        yield "a private API answers every network"


def machines_are_closed(templates: Templates) -> Iterator[str]:
    resources = templates["training"]["Resources"]
    metadata = resources["MachineTemplate"]["Properties"]["LaunchTemplateData"]["MetadataOptions"]
    if metadata != {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}:
        yield "a container may take the machine's role"
    if "SecurityGroupIngress" in resources["MachineGroup"]["Properties"]:
        yield "machines let others in"
    if "SourceSecurityGroupId" not in resources["MachinesIn"]["Properties"]:
        yield "machines let more in than each other"
    if resources["Job"]["Properties"]["ContainerProperties"]["Privileged"] is not False:
        yield "a job may do everything to its machine"


def no_secret_is_a_variable(templates: Templates) -> Iterator[str]:
    for template in templates.values():
        hidden = {name for name, parameter in template["Parameters"].items() if parameter.get("NoEcho")}
        for name, resource in template["Resources"].items():
            variables = resource.get("Properties", {}).get("Environment", {}).get("Variables", {})
            for variable, value in variables.items():
                if re.search(r"SECRET|PASSWORD|CREDENTIAL|TOKEN|_KEY$", variable) and variable not in PUBLIC:
                    yield f"{name} has the variable {variable}"
                if "{{resolve:" in str(value) or any(f"'{one}'" in str(value) for one in hidden):
                    yield f"{name} has a secret in {variable}"


def payloads_are_kept_where_that_is_asked_for_alone(templates: Templates) -> Iterator[str]:
    for template in templates.values():
        for name, parameter in template["Parameters"].items():
            if re.search(r"(Capture|Sample)(Rate|Percent)?$", name) and parameter.get("Default") not in (0, "0", "off"):
                yield f"{name} is on by default"


def captures_are_off_unless_asked_for(templates: Templates) -> Iterator[str]:
    for name in ("api", "events"):
        if templates[name]["Parameters"]["CaptureRate"]["Default"] != 0:
            yield f"{name} keeps requests though nobody asked for it"
        if templates[name]["Conditions"]["CaptureEnabled"] != {
            "Fn::Not": [{"Fn::Equals": [{"Ref": "CaptureRate"}, 0]}]
        }:
            yield f"the condition CaptureEnabled of {name} is another than that CaptureRate is above 0"


def captures_are_forgotten(templates: Templates) -> Iterator[str]:
    rules = templates["api"]["Resources"]["ModelBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    found = [rule for rule in rules if rule.get("Prefix") == "captures/" and rule["Status"] == "Enabled"]
    if not any("ExpirationInDays" in rule and "NoncurrentVersionExpiration" in rule for rule in found):
        yield "what was kept of requests is kept for ever"


def uploads_are_forgotten(templates: Templates) -> Iterator[str]:
    rules = templates["api"]["Resources"]["ModelBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    forgotten = {rule.get("Prefix") for rule in rules if "ExpirationInDays" in rule}
    for prefix in {"uploads/", "answers/", "idempotency/"} - forgotten:
        yield f"what lies below {prefix} is kept for ever"


def logs_are_forgotten(templates: Templates) -> Iterator[str]:
    for file, template in templates.items():
        days = SETTING_OF_DAYS if file == "api" else {"Ref": "LogDays"}
        for name, resource in template["Resources"].items():
            if resource["Type"] == "AWS::Logs::LogGroup" and resource["Properties"].get("RetentionInDays") != days:
                yield f"{name} is kept for another time than LogDays"
    if templates["api"]["Resources"]["Events"]["Properties"]["Parameters"].get("LogDays") != SETTING_OF_DAYS:
        yield "logs of events.yaml are kept for another time than LogDays"


def variables_have_the_key_for_data(templates: Templates) -> Iterator[str]:
    for name, template in templates.items():
        shared = template.get("Globals", {}).get("Function", {}).get("KmsKeyArn")
        for function, resource in template["Resources"].items():
            # The authorizer's are not secret, and it has no right over the key but to read documents of keys.
            if resource["Type"] == "AWS::Serverless::Function" and function != "AuthorizeFunction":
                key = resource["Properties"].get("KmsKeyArn", shared)
                if key != {"Fn::If": ["HasDataKey", {"Ref": "DataKey"}, {"Ref": "AWS::NoValue"}]}:
                    yield f"{name}.{function} has variables without the key for data"


RULES: list[Rule] = [
    variables_have_the_key_for_data,
    the_bucket_is_private_and_kept, the_bucket_asks_for_tls, no_body_is_logged,
    every_route_asks_for_what_the_mode_says, meters_open_nothing, the_default_asks_for_keys,
    keys_are_checked_before_they_count, every_route_leads_to_its_function,
    the_gateway_alone_may_call_what_answers_it,
    tokens_are_checked_before_they_count, a_private_api_answers_its_endpoint_alone, machines_are_closed,
    no_secret_is_a_variable, payloads_are_kept_where_that_is_asked_for_alone, captures_are_off_unless_asked_for,
    captures_are_forgotten, uploads_are_forgotten, logs_are_forgotten,
]  # fmt: skip


# --- and each rule, broken on purpose ---------------------------------------------------------------------------------

API, JOB = "api.Resources.Api.Properties", "training.Resources.Job.Properties.ContainerProperties"
BUCKET = "api.Resources.ModelBucket"
PATHS = f"{API}.DefinitionBody.paths"
MACHINES = "training.Resources.MachineTemplate.Properties.LaunchTemplateData.MetadataOptions"
FORMAT = f"{API}.AccessLogSetting.Fn::If.1.Format"
VARIABLES = "api.Resources.PredictFunction.Properties.Environment.Variables"
SCHEMES, CHECKS = f"{API}.DefinitionBody.components.securitySchemes", "x-amazon-apigateway-authorizer"
LOAD = "/v2/repository/models/{model}/load.x-amazon-apigateway-any-method"
START = "/v1/trainings.x-amazon-apigateway-any-method"

MUTATIONS: list[tuple[Rule, Change]] = [
    (variables_have_the_key_for_data, changed("api.Globals.Function.KmsKeyArn", None)),
    (variables_have_the_key_for_data, changed("events.Resources.BatchFunction.Properties.KmsKeyArn", None)),
    (uploads_are_forgotten, changed(f"{BUCKET}.Properties.LifecycleConfiguration.Rules.4.Prefix", "uploaded/")),
    (tokens_are_checked_before_they_count, changed(f"{SCHEMES}.token.Fn::If.0", "UsesKeys")),
    (keys_are_checked_before_they_count, changed(f"{SCHEMES}.key.Fn::If.0", "IsOpen")),
    (keys_are_checked_before_they_count, changed(f"{SCHEMES}.key.Fn::If.1.{CHECKS}", {})),
    (keys_are_checked_before_they_count, changed(f"{SCHEMES}.key.Fn::If.1.{CHECKS}.identitySource", {})),
    (keys_are_checked_before_they_count, changed("api.Mappings.Settings.Keys.GatewayCache", "on")),
    (
        keys_are_checked_before_they_count,
        changed(f"{SCHEMES}.key.Fn::If.1.{CHECKS}.authorizerResultTtlInSeconds.Fn::If.1", 3600),
    ),
    (keys_are_checked_before_they_count, changed("api.Resources.AuthorizeFunction.Condition", "UsesJwt")),
    (meters_open_nothing, changed(f"{API}.DefinitionBody.x-amazon-apigateway-api-key-source", "HEADER")),
    (meters_open_nothing, changed(f"{PATHS}.{LOAD}.security", [{"meter": []}])),
    (meters_open_nothing, changed(f"{PATHS}.{START}.security.0.Fn::If.2.Fn::If.2", {"meter": []})),
    (the_default_asks_for_keys, changed("api.Parameters.Auth.Default", "open")),
    (the_default_asks_for_keys, changed("api.Conditions.IsOpen", {"Fn::Not": [{"Fn::Equals": [1, 2]}]})),
    (the_default_asks_for_keys, changed("api.Parameters.RateLimit.Default", 5000)),
    (tokens_are_checked_before_they_count, changed(f"{SCHEMES}.token.Fn::If.1.{CHECKS}", {})),
    (
        tokens_are_checked_before_they_count,
        changed(f"{SCHEMES}.token.Fn::If.1.{CHECKS}.authorizerResultTtlInSeconds", 3600),
    ),
    (tokens_are_checked_before_they_count, changed("api.Rules.TokensHaveAnIssuer.Assertions.1", {})),
    (tokens_are_checked_before_they_count, changed("api.Parameters.JwtKeys.AllowedPattern", "https?://.+")),
    (every_route_asks_for_what_the_mode_says, changed(f"{PATHS}.{START}.security", [])),
    (the_bucket_is_private_and_kept, changed(f"{BUCKET}.DeletionPolicy", "Delete")),
    (
        the_bucket_is_private_and_kept,
        changed(f"{BUCKET}.Properties.PublicAccessBlockConfiguration.BlockPublicAcls", False),
    ),
    (the_bucket_is_private_and_kept, changed(f"{BUCKET}.Properties.BucketEncryption", None)),
    (the_bucket_asks_for_tls, changed("api.Resources.ModelBucketPolicy.Properties.PolicyDocument.Statement", [])),
    (no_body_is_logged, changed(f"{API}.MethodSettings.0.DataTraceEnabled", True)),
    (no_body_is_logged, changed(FORMAT, '{"body":"$context.authorizer.claims"}')),
    (every_route_asks_for_what_the_mode_says, changed(f"{PATHS}.{LOAD}.security", [])),
    (every_route_asks_for_what_the_mode_says, changed(f"{PATHS}./invocations", None)),
    (every_route_asks_for_what_the_mode_says, changed(f"{PATHS}./v2.x-amazon-apigateway-any-method.security", [])),
    (every_route_leads_to_its_function, changed(f"{PATHS}.{LOAD}.x-amazon-apigateway-integration", {})),
    (the_gateway_alone_may_call_what_answers_it, changed("api.Resources.PredictPermission", None)),
    (the_gateway_alone_may_call_what_answers_it, changed("api.Resources.ModelsPermission.Properties.SourceArn", {})),
    (a_private_api_answers_its_endpoint_alone, changed(f"{API}.DefinitionBody.x-amazon-apigateway-policy", None)),
    (machines_are_closed, changed(f"{MACHINES}.HttpTokens", "optional")),
    (machines_are_closed, changed(f"{MACHINES}.HttpPutResponseHopLimit", 2)),
    (machines_are_closed, changed("training.Resources.MachinesIn.Properties.SourceSecurityGroupId", None)),
    (machines_are_closed, changed(f"{JOB}.Privileged", True)),
    (captures_are_off_unless_asked_for, changed("api.Parameters.CaptureRate.Default", 0.01)),
    (
        captures_are_off_unless_asked_for,
        changed("events.Conditions.CaptureEnabled", {"Fn::Not": [{"Ref": "CaptureRate"}]}),
    ),
    (captures_are_forgotten, changed(f"{BUCKET}.Properties.LifecycleConfiguration.Rules", [])),
    (logs_are_forgotten, changed("api.Resources.PredictLogs.Properties.RetentionInDays", None)),
    (logs_are_forgotten, changed("api.Resources.Events.Properties.Parameters.LogDays", None)),
    (no_secret_is_a_variable, changed(f"{VARIABLES}.API_KEY", "x")),
    (no_secret_is_a_variable, changed(f"{VARIABLES}.PILOTLIGHT_MODEL", "{{resolve:secretsmanager:x}}")),
    (no_secret_is_a_variable, changed("api.Parameters.Preload.NoEcho", True)),
    (payloads_are_kept_where_that_is_asked_for_alone, changed("api.Parameters.CaptureRate", {"Default": 1})),
]
