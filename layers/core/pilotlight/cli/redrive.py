"""`pilotlight redrive`: messages that could not be answered go from the dead letters back into their queue."""

from typing import Annotated

import typer

from pilotlight.aws.sqs_redrive import move_messages, resolve_queue_pair
from pilotlight.cli.console import ERRORS, RESULTS, JsonOption, print_json
from pilotlight.errors import UnavailableError, format_cause

QueueOption = Annotated[str, typer.Option("--queue", metavar="URL", help="Where messages go; names its dead letters.")]
DlqOption = Annotated[str, typer.Option("--dlq", metavar="URL", help="The dead letters; alone, its only source.")]


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
