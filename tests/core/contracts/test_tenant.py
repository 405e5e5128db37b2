"""The folder of a tenant: one for each name, whatever the name is, that a reader recognises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.contracts.names import is_version
from pilotlight.contracts.tenant import encode_tenant, is_tenant_folder, tenant_folder

CHARACTERS = st.sampled_from(
    [*"aAbB09._-=/|:@+ %", "é", "e\u0301", "K", "\u212a", "\n", "\ud800", "tenant=", "_41", "__"]
)
NAMES = st.lists(CHARACTERS, min_size=1, max_size=6).map("".join) | st.text(min_size=1, max_size=200)


@given(NAMES, NAMES)
def test_two_tenants_have_two_folders_even_where_case_is_ignored(one: str, other: str) -> None:
    folders = {tenant_folder("uploads", name).casefold() for name in (one, other)}
    assert len(folders) == len({one, other})


@given(NAMES)
def test_a_folder_is_one_part_of_a_path_and_known_as_a_tenants(name: str) -> None:
    folder = tenant_folder("uploads", name)
    assert folder.startswith("uploads/")
    assert folder.count("/") == 1
    assert is_tenant_folder(folder.partition("/")[2])
    assert len(folder) < 150


@given(st.from_regex(r"[A-Za-z0-9._-]+", fullmatch=True))
def test_no_name_that_a_model_or_an_upload_may_have_is_a_tenants_folder(name: str) -> None:
    assert not is_tenant_folder(name)
    assert not is_version(tenant_folder("", name))


@pytest.mark.parametrize(
    ("name", "encoded"),
    [
        ("acme", "acme"),
        ("acme.example-2", "acme.example-2"),
        ("Acme", "_41cme"),
        ("auth0|5f7c/x", "auth0_7c5f7c_2fx"),
        ("ann@example.com", "ann_40example.com"),
        ("_", "_5f"),
        ("é", "_c3_a9"),
    ],
)
def test_a_name_stays_readable(name: str, encoded: str) -> None:
    assert encode_tenant(name) == encoded


def test_a_long_name_is_cut_and_stays_its_own() -> None:
    one, other = "a" * 200, "a" * 199 + "b"
    assert encode_tenant(one)[:62] == encode_tenant(other)[:62] == "a" * 60 + "__"
    assert encode_tenant(one) != encode_tenant(other)
    assert len(encode_tenant("\U0001f600" * 128)) < 150


def test_the_stacks_own_callers_have_the_folder_itself() -> None:
    assert tenant_folder("uploads", "") == "uploads"
