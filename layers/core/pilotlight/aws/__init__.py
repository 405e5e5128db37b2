"""AWS services that are called beside the store: EventBridge, Lambda, SQS."""
