"""Compare a version's captures with its profile, for the nightly function and for `pilotlight drift`.

drift/<model>/<version>/<until>.json    a report, beside the captures; the next report begins where the newest ends
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from msgspec import Struct

from pilotlight.capture import reader
from pilotlight.capture.record import CaptureRecord
from pilotlight.contracts.feature_profile import FeatureProfile
from pilotlight.contracts.manifest import Manifest
from pilotlight.drift.aggregation import HistogramAggregator
from pilotlight.drift.comparison import MIN_EXAMPLES, Comparison, compare_features
from pilotlight.errors import NotFoundError
from pilotlight.registry.registry import Registry, version_path
from pilotlight.storage.documents import Document
from pilotlight.storage.object_store import ObjectStore

REPORTS_FOLDER = "drift"
STAMP_FORMAT = "%Y-%m-%dT%H"  # in a report's name: sorts by time
SEVERITY = ("drifted", "changed", "stable", "too few")
MAX_DAYS = 30  # that a first report looks back


class DriftReport(Struct, frozen=True, kw_only=True):
    """How a version's requests changed between two times."""

    schema_version: Literal[1] = 1
    model: str
    version: int
    since: str  # RFC 3339, UTC
    until: str
    requests: int  # that were captured
    examples: int  # in them
    trained: int  # examples in the profile
    files: int = 0
    files_left_out: int = 0  # when there were too many to read
    comparisons: tuple[Comparison, ...] = ()

    def select_names(self, *verdicts: str) -> list[str]:
        """Return the names of the features and answers with one of these verdicts."""
        return [one.name for one in self.comparisons if one.verdict in verdicts]

    @property
    def drifted_names(self) -> list[str]:
        """The features and answers that have drifted."""
        return self.select_names("drifted")

    @property
    def comparisons_by_severity(self) -> list[Comparison]:
        """The comparisons, most changed first."""
        return sorted(self.comparisons, key=lambda one: (SEVERITY.index(one.verdict), -one.psi))

    @property
    def has_enough_examples(self) -> bool:
        """Whether there were enough examples for a comparison."""
        return self.examples >= MIN_EXAMPLES


@dataclass(frozen=True)
class DriftAnalysis:
    """A report, and the histograms that it was made from."""

    report: DriftReport
    profile: FeatureProfile
    aggregator: HistogramAggregator


def load_profile(registry: Registry, manifest: Manifest) -> FeatureProfile:
    """Load the profile of a version; `NotFoundError` if it was published without one."""
    if manifest.profile is None:
        raise NotFoundError(
            f"{manifest.name}:{manifest.version} has no profile of its training set to compare with; train it anew, or "
            "publish it with --evaluation FILE."
        )
    path = version_path(manifest.name, manifest.version, manifest.profile)
    return Document(registry.store, path, FeatureProfile).read()


def analyze_drift(registry: Registry, name: str, version: int, since: datetime, until: datetime) -> DriftAnalysis:
    """Compare the captures of the hours from `since` to before `until` with the profile."""
    profile, store = load_profile(registry, registry.load_manifest(name, version)), registry.store
    file_paths = reader.list_capture_files(store, name, version, since, until)
    chosen = reader.sample_evenly(file_paths)
    aggregator = aggregate_records(profile, reader.read_records(store, chosen))
    tests = len(profile.features) + len(profile.answers)
    report = DriftReport(
        model=name,
        version=version,
        since=since.isoformat(),
        until=until.isoformat(),
        requests=aggregator.requests,
        examples=aggregator.examples,
        trained=profile.examples,
        files=len(chosen),
        files_left_out=len(file_paths) - len(chosen),
        comparisons=(
            *compare_features("feature", profile.features, aggregator.features, tests),
            *compare_features("answer", profile.answers, aggregator.answers, tests),
        ),
    )
    return DriftAnalysis(report, profile, aggregator)


def aggregate_records(profile: FeatureProfile, records: Iterable[CaptureRecord]) -> HistogramAggregator:
    """Count all records."""
    aggregator = HistogramAggregator(profile)
    for line in records:
        aggregator.add(line)
    return aggregator


def truncate_to_hour(at: datetime) -> datetime:
    """Return the beginning of the hour: the hours before it are complete."""
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def find_report_start(store: ObjectStore, name: str, version: int, until: datetime) -> datetime:
    """Find where a version's next report begins: at the end of its last one, or `MAX_DAYS` ago."""
    names = (path.rsplit("/", 1)[-1] for path in store.list_paths(f"{REPORTS_FOLDER}/{name}/{version}"))
    ends = (parse_report_name(file_name) for file_name in names)
    return max([until - timedelta(days=MAX_DAYS), *(end for end in ends if end is not None)])


def parse_report_name(file_name: str) -> datetime | None:
    """Parse the end of a report's hours from its file name; None for a file of another kind."""
    try:
        return datetime.strptime(file_name, f"{STAMP_FORMAT}.json").replace(tzinfo=UTC)
    except ValueError:
        return None


def save_report(store: ObjectStore, report: DriftReport) -> str:
    """Write a report and return its path."""
    stamp = datetime.fromisoformat(report.until).strftime(STAMP_FORMAT)
    path = f"{REPORTS_FOLDER}/{report.model}/{report.version}/{stamp}.json"
    Document(store, path, DriftReport).write(report)
    return path


def format_report(report: DriftReport) -> str:
    """Format a report as one sentence."""
    what = f"{report.model}:{report.version}, {report.examples:,} examples of {report.requests:,} requests"
    if not report.has_enough_examples:
        return f"{what}: too few to say anything, which takes {MIN_EXAMPLES}."
    drifted, changed = report.drifted_names, report.select_names("changed")
    if not drifted and not changed:
        return f"{what}: no drift."
    said = [f"{words}: {', '.join(names)}" for words, names in (("drifted", drifted), ("changed", changed)) if names]
    return f"{what}: {'; '.join(said)}."
