"""Replacement of a function of ministack, wherever its modules have imported it by name."""

import sys
from typing import Any


def replace_everywhere(name: str, old: Any, new: Any) -> None:  # noqa: ANN401 - ministack has no types
    """Replace the function `old` in every module that has it under this name."""
    for module in list(sys.modules.values()):
        if getattr(module, name, None) is old:
            setattr(module, name, new)
