"""Make a version of a language model: `python -m functions.train.language_models PATH --name NAME --into FOLDER`.

FOLDER gets `draft.json` and the files of the version. Exit codes: 0 done, 1 it failed, 2 the request is wrong; the
reason is one sentence on standard error.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from functions.train.language_models import version_files
from functions.train.language_models.decoder_variants import QUANTIZE_WORDS
from pilotlight.errors import InvalidInputError, PilotlightError, TooLargeError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = build_parser().parse_args(arguments)
    asked = version_files.PublishOptions(options.name, options.quantize, options.evaluation, options.context)
    try:
        version_files.write_version_files(options.path, asked, options.into)
    except PilotlightError as exc:
        sys.stderr.write(f"{exc}\n")
        return 2 if isinstance(exc, InvalidInputError | TooLargeError) else 1
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m functions.train.language_models", description="Make a version of a language model."
    )
    parser.add_argument("path", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--into", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--quantize", choices=QUANTIZE_WORDS, default="auto")
    parser.add_argument("--evaluation", type=Path, metavar="FILE.txt", help="a text to measure the variants on")
    parser.add_argument("--context", type=int, metavar="TOKENS", help="of prompt and answer together")
    return parser


if __name__ == "__main__":
    sys.exit(main())
