"""`pilotlight models`: list the models of the store."""

from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table

from pilotlight.cli.console import ERRORS, RESULTS, STORE, JsonOption, StoreOption, open_registry, print_json
from pilotlight.contracts.codec import decode_document
from pilotlight.contracts.manifest import Manifest
from pilotlight.contracts.metric import format_value
from pilotlight.contracts.names import check_name
from pilotlight.contracts.report_summary import ReportSummary
from pilotlight.errors import BrokenDocumentError, InvalidInputError, NotFoundError
from pilotlight.registry.registry import AliasListing, Registry, version_path


def models(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A model; all of them if left out.")] = None,
    store: StoreOption = STORE,
    json: JsonOption = False,
) -> None:
    """Versions, aliases, metrics."""
    model_registry = open_registry(store)
    names = model_registry.list_models() if name is None else [check_name(name, "model name")]
    described = [describe_model(model_registry, each) for each in names]
    if name is not None:
        add_reports(model_registry, described[0])
    if json:
        print_json(described if name is None else described[0])
    elif not described:
        RESULTS.print(f"No models in {store} yet; `pilotlight train digits` makes one.", markup=False, soft_wrap=True)
    for model in [] if json else described:
        RESULTS.print(build_versions_table(model))
        for line in list_verdicts(model):
            RESULTS.print(line, markup=False, highlight=False, soft_wrap=True)
        for error in list_errors(model):
            ERRORS.print(error, markup=False, soft_wrap=True)


def describe_model(model_registry: Registry, name: str) -> dict[str, Any]:
    """Describe a model: its versions, newest first, and its aliases; raise `NotFoundError` if it does not exist."""
    versions = model_registry.list_versions(name)
    if not versions:
        raise NotFoundError(f"There is no model {name!r} in {model_registry.store.url}; `pilotlight models` lists all.")
    aliases = model_registry.load_aliases(name)
    return {
        "name": name,
        "aliases": aliases.documents,
        "errors": aliases.errors,
        "versions": [describe_version(model_registry, name, version, aliases) for version in reversed(versions)],
    }


def add_reports(model_registry: Registry, model: dict[str, Any]) -> None:
    """Add what was measured of each version's variants, from its report; versions without one have none."""
    for version in model["versions"]:
        if path := version.get("report"):
            full_path = version_path(model["name"], int(version["version"]), path)
            try:
                report = decode_document(model_registry.store.get(full_path).data, ReportSummary, full_path)
            except (InvalidInputError, NotFoundError) as exc:
                version["quantization"] = {"error": str(exc)}
            else:
                version["quantization"] = msgspec.to_builtins(report)


def list_verdicts(model: dict[str, Any]) -> list[str]:
    """List why each version serves the variant that it serves."""
    found = [(version["version"], version.get("quantization")) for version in model["versions"]]
    return [f"{model['name']}:{number} {one.get('verdict') or one['error']}" for number, one in found if one]


def list_errors(model: dict[str, Any]) -> list[str]:
    """List what of a model could not be read."""
    return [*model["errors"].values(), *(version["error"] for version in model["versions"] if "error" in version)]


def describe_version(model_registry: Registry, name: str, version: int, listing: AliasListing) -> dict[str, Any]:
    """Describe a version; one whose manifest is broken has an error."""
    aliases = [alias for alias, document in listing.documents.items() if document.version == version]
    try:
        manifest = model_registry.load_manifest(name, version)
    except BrokenDocumentError as exc:
        return {"version": str(version), "aliases": aliases, "error": str(exc)}
    return {"version": str(version), "aliases": aliases} | build_version_summary(manifest)


def build_version_summary(manifest: Manifest) -> dict[str, Any]:
    """Summarize a version's manifest."""
    return {
        "serve": manifest.serve,
        "metric": manifest.metric or "accuracy",  # manifests of before the field name no other
        "bytes": manifest.served_bytes,
        "golden": "recorded" if manifest.golden is not None else "not checked",
        "metrics": {precision: variant.metrics for precision, variant in manifest.variants.items()},
        "report": manifest.report,
        "created": manifest.created,
        "by": manifest.by,
    }


def build_versions_table(model: dict[str, Any]) -> Table:
    """Build a model's table, with the metric of the served variant."""
    table = Table(title=model["name"], title_justify="left", title_style="bold")
    for column in ("version", "aliases", "served", "kB", "measured", "golden", "created"):
        table.add_column(column, justify="right" if column in ("version", "kB", "measured") else "left")
    for version in model["versions"]:
        if "error" in version:
            table.add_row(version["version"], ", ".join(version["aliases"]), "broken")
            continue
        table.add_row(
            version["version"],
            ", ".join(version["aliases"]),
            version["serve"],
            f"{version['bytes'] / 1000:,.1f}",
            format_measured_metric(version),
            version["golden"],
            version["created"][:16].replace("T", " "),
        )
    return table


def format_measured_metric(version: dict[str, Any]) -> str:
    """Format the metric by which the version is judged, with its name; a published file may have none."""
    name = version["metric"]
    value = version["metrics"][version["serve"]].get(name)
    return "" if value is None else f"{name} {format_value(name, value)}"
