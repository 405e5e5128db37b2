import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.generation.stop_strings import StopStringFinder

TEXTS = st.text("ab\n", max_size=20)
STOPS = st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3)


def find(pieces: list[str], stops: list[str], *, include: bool = False) -> tuple[str, str | None]:
    """The text that goes out in all, and the stop string."""
    finder = StopStringFinder(stops, include=include)
    text = ""
    for piece in pieces:
        text += finder.push(piece)
        if finder.found is not None:
            return text, finder.found
    return text + finder.flush(), None


def find_plainly(text: str, stops: list[str], *, include: bool) -> tuple[str, str | None]:
    """The same, from the whole text: the first stop string to be complete, and of several the longest."""
    for end in range(1, len(text) + 1):
        for stop in sorted(stops, key=len, reverse=True):
            if text[:end].endswith(stop):
                return text[: end if include else end - len(stop)], stop
    return text, None


@given(st.lists(TEXTS, max_size=6), STOPS, st.booleans())
def test_the_cut_is_that_of_the_whole_text(pieces: list[str], stops: list[str], include: bool) -> None:
    assert find(pieces, stops, include=include) == find_plainly("".join(pieces), stops, include=include)


@given(st.lists(TEXTS, max_size=6), STOPS)
def test_no_part_of_a_stop_string_is_let_out_before_it_is_clear(pieces: list[str], stops: list[str]) -> None:
    whole, _ = find_plainly("".join(pieces), stops, include=False)
    finder = StopStringFinder(stops)
    text = ""
    for piece in pieces:
        text += finder.push(piece)
        assert whole.startswith(text)
        if finder.found is not None:
            break


def test_a_stop_string_over_several_pieces_is_never_seen() -> None:
    finder = StopStringFinder(["DEFGHIJ"])
    assert [finder.push(piece) for piece in ("DEF", "G", "HI", "J")] == ["", "", "", ""]
    assert finder.found == "DEFGHIJ"


@pytest.mark.parametrize(("include", "text"), [(False, "?"), (True, "?\n")])
def test_what_stands_before_it_in_its_piece_goes_out(include: bool, text: str) -> None:
    assert find(["?\n!"], ["\n"], include=include) == (text, "\n")


def test_a_beginning_that_is_not_completed_goes_out_at_the_end() -> None:
    assert find(["Yes", ". Us", "er"], ["User:"]) == ("Yes. User", None)
