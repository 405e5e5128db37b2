"""Every rule of rights, privacy and paths with what breaks it on purpose: `python -m tests.infra.mutations`.

It exits with 1 when a rule does not hold, or does not notice what breaks it.
"""

import copy
import sys
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from tests import conftest  # noqa: F401 - sets the variables that handlers read when they are imported
from tests.infra import conduct
from tests.infra.templates import TEMPLATES
from tests.infra.test_security import MUTATIONS, RULES

Row = tuple[str, str, str]  # the rule, what breaks it, what the rule says then
HOLDS, MISSED = "holds", "NOT NOTICED"


def of_templates() -> Iterator[Row]:
    """Rules over the templates."""
    for rule in RULES:
        yield rule.__name__, "", "; ".join(rule(TEMPLATES)) or HOLDS
        for broken, change in MUTATIONS:
            if broken is rule:
                template = copy.deepcopy(TEMPLATES)
                change(template)
                yield "", str(change.__doc__), next(iter(rule(template)), MISSED)


def of_code() -> Iterator[Row]:
    """Rules over what the code does."""
    for rule in conduct.RULES:
        yield rule.__name__, "", "; ".join(rule()) or HOLDS
        for mutation in conduct.MUTATIONS:
            if mutation.rule is rule:
                with mutation.made():
                    yield "", str(mutation), next(iter(rule()), MISSED)


def main() -> int:
    """Print the table; 0 when every rule holds and every mutation is noticed."""
    rows = [*of_templates(), *of_code()]
    table = Table("rule", "broken by", "what it says", title="Rules and mutations", show_lines=False)
    for name, how, said in rows:
        table.add_row(name.replace("_", " "), how, said, end_section=False)
    rules, broken = [row for row in rows if row[0]], [row for row in rows if not row[0]]
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    wrong = [row for row in rules if row[2] != HOLDS] + [row for row in broken if row[2] == MISSED]
    sys.stdout.write(f"{len(rules)} rules, {len(broken)} mutations, {len(wrong)} of them wrong\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
