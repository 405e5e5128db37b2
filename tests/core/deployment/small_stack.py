"""The template of a small stack, with the parameters and outputs by which it passes for Pilotlight's."""

import json

TEMPLATE = json.dumps({
    "Parameters": {
        "Auth": {"Type": "String", "Default": "keys"},
        "ModelMemory": {"Type": "String", "Default": "1769"},
        "Promotion": {"Type": "String", "Default": "off"},
        "AccessLogs": {"Type": "String", "Default": "account"},
        "Architecture": {"Type": "String", "Default": "x86_64"},
    },
    "Resources": {
        "ModelBucket": {"Type": "AWS::S3::Bucket", "DeletionPolicy": "Retain"},
        "DeadLetters": {"Type": "AWS::SQS::Queue", "DeletionPolicy": "Retain"},
        "Repository": {
            "Type": "AWS::ECR::Repository",
            "DeletionPolicy": "RetainExceptOnCreate",
            "Properties": {"RepositoryName": {"Ref": "AWS::StackName"}},
        },
        "Queue": {"Type": "AWS::SQS::Queue"},
        "PredictLogs": {"Type": "AWS::Logs::LogGroup"},
        "PromoteLogs": {"Type": "AWS::Logs::LogGroup"},
        "GatewayLogs": {"Type": "AWS::Logs::LogGroup"},
    },
    "Outputs": {
        "Url": {"Value": "https://abc.execute-api.us-east-1.amazonaws.com/prod"},
        "Bucket": {"Value": {"Ref": "ModelBucket"}},
        "Dashboard": {"Value": "models-dashboard"},
        "Auth": {"Value": {"Ref": "Auth"}},
    },
})  # fmt: skip
