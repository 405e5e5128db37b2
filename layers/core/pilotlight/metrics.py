"""Counters for CloudWatch, printed as one line of its embedded metric format: no call, no permission, no wait.

Only what goes wrong is counted here, so Powertools, 70 ms to import, is imported when the first count is made.
"""


def count(name: str, **dimensions: str) -> None:
    """Add one to the metric `name` of the namespace Pilotlight, under these dimensions."""
    from aws_lambda_powertools.metrics import MetricUnit, single_metric

    with single_metric(name=name, unit=MetricUnit.Count, value=1, namespace="Pilotlight") as metric:
        for dimension, value in dimensions.items():
            metric.add_dimension(name=dimension, value=value)
