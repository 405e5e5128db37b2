"""Metrics in CloudWatch's embedded format, and correlation of log lines."""
