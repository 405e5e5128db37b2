"""A version's captures against its profile: what the nightly function and `pilotlight drift` do alike.

drift/<model>/<version>/<until>.json    a report, beside the captures; the newest says where the next begins
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from msgspec import Struct

from pilotlight.capture import reader
from pilotlight.capture.record import Line
from pilotlight.contracts.feature_profile import Profile
from pilotlight.contracts.manifest import Manifest, decode, encode
from pilotlight.drift.aggregation import Tally
from pilotlight.drift.comparison import FEWEST, Comparison, compared
from pilotlight.errors import NotFoundError
from pilotlight.registry.registry import Registry, version_path
from pilotlight.storage.object_store import ObjectStore

FOLDER = "drift"
STAMP = "%Y-%m-%dT%H"  # in a report's name: sorts by time
SEVERITY = ("drifted", "changed", "stable", "too few")
MOST_DAYS = 30  # that a first report looks back


class Report(Struct, frozen=True, kw_only=True):
    """What became of a version's requests between two times."""

    schema_version: Literal[1] = 1
    model: str
    version: int
    since: str  # RFC 3339, UTC
    until: str
    requests: int  # that were kept
    examples: int  # in them
    trained: int  # examples that the profile is of
    files: int = 0
    files_left_out: int = 0  # where there were too many to read
    comparisons: tuple[Comparison, ...] = ()

    def named(self, *verdicts: str) -> list[str]:
        """The features and answers with one of these verdicts."""
        return [one.name for one in self.comparisons if one.verdict in verdicts]

    @property
    def drifted(self) -> list[str]:
        """The features and answers that have drifted."""
        return self.named("drifted")

    @property
    def ranked(self) -> list[Comparison]:
        """The most changed first."""
        return sorted(self.comparisons, key=lambda one: (SEVERITY.index(one.verdict), -one.psi))

    @property
    def enough(self) -> bool:
        """Whether there were examples enough to say anything."""
        return self.examples >= FEWEST


@dataclass(frozen=True)
class Inspection:
    """A report, and the histograms that it was made from."""

    report: Report
    profile: Profile
    tally: Tally


def profile_of(registry: Registry, manifest: Manifest) -> Profile:
    """The profile of a version; `NotFoundError` for one that was published without."""
    if manifest.profile is None:
        raise NotFoundError(
            f"{manifest.name}:{manifest.version} has no profile of its training set to compare with; train it anew, or "
            "publish it with --evaluation FILE."
        )
    path = version_path(manifest.name, manifest.version, manifest.profile)
    return decode(registry.store.get(path).data, Profile, path)


def inspect(registry: Registry, name: str, version: int, since: datetime, until: datetime) -> Inspection:
    """Compare what was kept in the hours from `since` to before `until`."""
    profile, store = profile_of(registry, registry.manifest(name, version)), registry.store
    found = reader.files(store, name, version, since, until)
    chosen = reader.thinned(found)
    tally = tallied(profile, reader.read(store, chosen))
    tests = len(profile.features) + len(profile.answers)
    report = Report(
        model=name,
        version=version,
        since=since.isoformat(),
        until=until.isoformat(),
        requests=tally.requests,
        examples=tally.examples,
        trained=profile.examples,
        files=len(chosen),
        files_left_out=len(found) - len(chosen),
        comparisons=(
            *compared("feature", profile.features, tally.features, tests),
            *compared("answer", profile.answers, tally.answers, tests),
        ),
    )
    return Inspection(report, profile, tally)


def tallied(profile: Profile, lines: Iterable[Line]) -> Tally:
    """All lines, counted."""
    tally = Tally(profile)
    for line in lines:
        tally.add(line)
    return tally


def whole_hour(at: datetime) -> datetime:
    """The beginning of its hour: the hours before it are complete."""
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def begin(store: ObjectStore, name: str, version: int, until: datetime) -> datetime:
    """Where the next report of a version begins: where its last one ended, or `MOST_DAYS` ago."""
    stamps = [path.rsplit("/", 1)[-1].removesuffix(".json") for path in store.paths(f"{FOLDER}/{name}/{version}")]
    earliest = until - timedelta(days=MOST_DAYS)
    if not stamps:
        return earliest
    return max(earliest, datetime.strptime(max(stamps), STAMP).replace(tzinfo=UTC))


def keep(store: ObjectStore, report: Report) -> str:
    """Write a report; gives its path."""
    stamp = datetime.fromisoformat(report.until).strftime(STAMP)
    path = f"{FOLDER}/{report.model}/{report.version}/{stamp}.json"
    store.put(path, encode(report))
    return path


def told(report: Report) -> str:
    """A report in a sentence."""
    what = f"{report.model}:{report.version}, {report.examples:,} examples of {report.requests:,} requests"
    if not report.enough:
        return f"{what}: too few to say anything, which takes {FEWEST}."
    drifted, changed = report.drifted, report.named("changed")
    if not drifted and not changed:
        return f"{what}: no drift."
    said = [f"{words}: {', '.join(names)}" for words, names in (("drifted", drifted), ("changed", changed)) if names]
    return f"{what}: {'; '.join(said)}."
