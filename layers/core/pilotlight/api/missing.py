"""NaN in JSON, which has no word for it: a number that is missing, as python and the clients built on it write it.

tritonclient writes it for a tensor in JSON form, MLflow's client for an empty cell of a data frame; the servers that
they come from read it (infra/decisions/0056). It knows texts and brackets, not requests.
"""

import re

# A text is one step, closed or not: what follows an open quote is not searched again and again.
TEXT_OR_NAN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|\bNaN\b', re.DOTALL)


def replace_nan_with_null(body: bytes) -> bytes | None:
    """The body with null for each NaN that stands outside of texts; None where there is none."""
    if b"NaN" not in body:
        return None
    replaced = TEXT_OR_NAN.sub(lambda found: b"null" if found[0] == b"NaN" else found[0], body)
    return None if replaced == body else replaced
