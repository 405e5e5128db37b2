"""`pilotlight delete`, `prune` and `redrive`: remove versions that no alias needs, and move dead letters back."""

from typing import Annotated

import typer

from pilotlight.aws.sqs_redrive import move_messages, resolve_queue_pair
from pilotlight.cli.canary import parse_version_reference
from pilotlight.cli.console import ERRORS, RESULTS, STORE, JsonOption, StoreOption, open_registry, print_json
from pilotlight.contracts.names import check_name
from pilotlight.errors import UnavailableError, format_cause
from pilotlight.registry import retention
from pilotlight.registry.retention import PruningPlan

QueueOption = Annotated[str, typer.Option("--queue", metavar="URL", help="Where messages go; names its dead letters.")]
DlqOption = Annotated[str, typer.Option("--dlq", metavar="URL", help="The dead letters; alone, its only source.")]


def delete(
    reference: Annotated[str, typer.Argument(metavar="NAME:VERSION", help="The version to remove for good.")],
    store: StoreOption = STORE,
    json: JsonOption = False,
) -> None:
    """Remove a version for good; refused while an alias needs it."""
    name, version = parse_version_reference(reference)
    retention.delete_version(open_registry(store), name, version)
    print_json({"deleted": f"{name}:{version}"}) if json else typer.echo(f"{name}:{version} is deleted.")


def prune(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A model; all of them if left out.")] = None,
    keep: Annotated[int, typer.Option("--keep", min=1, help="How many of the newest versions stay.")] = 5,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this it only says what would go.")] = False,
    store: StoreOption = STORE,
    json: JsonOption = False,
) -> None:
    """Remove old versions that no alias needs, and files of uploads that were never finished."""
    model_registry = open_registry(store)
    if name:
        retention.check_model_exists(model_registry, check_name(name, "model name"))
    names = [name] if name else model_registry.list_models()
    plans = [retention.plan_pruning(model_registry, each, keep) for each in names]
    for plan in plans if yes else []:
        retention.prune(model_registry, plan)
    if json:
        print_json({"done": yes, "plans": plans})
    for plan in [] if json else plans:
        typer.echo(format_pruning_plan(plan, done=yes))


def format_pruning_plan(plan: PruningPlan, *, done: bool) -> str:
    """Format a plan, with the reason for each version that stays."""
    verb = "removed" if done else "would go with --yes"
    versions = ", ".join(map(str, plan.versions)) or "no version"
    stays = "; ".join(f"{version} stays, {why}" for version, why in plan.kept_reasons.items())
    return f"{plan.model}: {versions} and {len(plan.orphan_paths)} files of unfinished uploads {verb}. {stays}."


def redrive(queue: QueueOption = "", dlq: DlqOption = "", json: JsonOption = False) -> None:
    """Put the dead letters back into their queue, once what they died of is mended."""
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    moved = total = 0
    try:
        sqs = boto3.client("sqs")
        queue, dlq = resolve_queue_pair(sqs, queue, dlq)
        for moved, total in move_messages(sqs, dlq, queue):
            ERRORS.print(f"{moved} of {total} moved", markup=False)
    except (BotoCoreError, ClientError) as exc:
        raise UnavailableError(f"SQS does not move the dead letters: {format_cause(exc)}.") from exc
    if json:
        print_json({"queue": queue, "dlq": dlq, "moved": moved, "total": total})
    else:
        RESULTS.print(f"{moved} of {total} dead letters are back in {queue}.", markup=False, soft_wrap=True)
