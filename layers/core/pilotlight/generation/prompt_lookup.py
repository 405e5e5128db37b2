"""Guess the next tokens from what prompt and answer have said before: for summaries, copies and edits.

The last tokens are looked for further back, and what followed them there is the draft. The model runs a draft's tokens
at once, which takes less time than one after the other, and each is drawn as ever: a token that is drawn as it was
guessed is accepted, and at the first other one the rest of the draft is forgotten. So the distribution is the model's
own for sampling too (with a draft that is certain, this is the rejection rule of Leviathan et al. 2023), and so are
penalties and constraints. Saxena's prompt lookup decoding (2023).

Greedy text is the same as without drafts where those runs have several tokens as well, see `causal_model`.
"""

from collections.abc import Sequence

LONGEST_GRAM = 3  # tokens that are looked for, the longest first
DRAFT_TOKENS = 4  # more cost more than they bring: each row of a run takes 3 ms where one alone takes 9


class PromptLookup:
    """An index of the places where the last few tokens occurred."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens: list[int] = []
        self._places: dict[tuple[int, ...], int] = {}  # behind the last occurrence of each run of tokens but the last
        for token in tokens:
            self.append(token)

    def append(self, token: int) -> None:
        """Take the next token of the text."""
        end = len(self._tokens)
        for length in range(1, min(LONGEST_GRAM, end) + 1):
            self._places[tuple(self._tokens[end - length :])] = end
        self._tokens.append(token)

    def find_draft(self, limit: int = DRAFT_TOKENS) -> list[int]:
        """Return what followed the last tokens when they last occurred, at most `limit` tokens; or nothing."""
        end = len(self._tokens)
        for length in range(min(LONGEST_GRAM, end), 0, -1):
            place = self._places.get(tuple(self._tokens[end - length :]))
            if place is not None:
                return self._tokens[place : place + max(limit, 0)]
        return []
