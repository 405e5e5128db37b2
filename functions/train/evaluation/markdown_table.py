"""Tables of model cards. It imports no torch."""

from collections.abc import Iterable, Sequence


def format_markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(
        "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in one) + " |" for one in lines
    )
