"""Counters for CloudWatch, printed as one line of its embedded metric format: no call, no permission, no wait.

Only what goes wrong is counted here, so Powertools, 70 ms to import, is imported when the first count is made.
"""

from collections.abc import Mapping


def count(name: str, properties: Mapping[str, object] | None = None, **dimensions: str) -> None:
    """Add one to the metric `name` of the namespace Pilotlight, under these dimensions.

    `properties` stand in the same line of the log, for whoever reads it, and make no metric of their own.
    """
    from aws_lambda_powertools.metrics import MetricUnit, single_metric

    with single_metric(name=name, unit=MetricUnit.Count, value=1, namespace="Pilotlight") as metric:
        for dimension, value in dimensions.items():
            metric.add_dimension(name=dimension, value=value)
        for key, content in (properties or {}).items():
            metric.add_metadata(key=key, value=content)
