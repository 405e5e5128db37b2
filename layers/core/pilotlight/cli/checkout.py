"""The folder that `pilotlight train`, `serve` and `demo` work in: the one that holds template.yaml and functions/."""

from pathlib import Path

from pilotlight.errors import InvalidInputError

TEMPLATE_FILE = "template.yaml"


def find_checkout() -> Path:
    """The checkout around the working folder, else the one that this package is installed from.

    `InvalidInputError` when there is neither.
    """
    here = Path.cwd()
    for candidate in (here, *here.parents, *Path(__file__).resolve().parents):
        if (candidate / TEMPLATE_FILE).is_file() and (candidate / "functions").is_dir():
            return candidate
    raise InvalidInputError(f"No {TEMPLATE_FILE} beside a functions folder in {here} or above; run this in a checkout.")
