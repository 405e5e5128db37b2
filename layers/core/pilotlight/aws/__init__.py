"""Clients of the AWS services used besides the store: EventBridge, Lambda, SQS."""
