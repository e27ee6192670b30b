"""What is kept of a key recognises it and nothing else, and does not hold it."""

from dataclasses import astuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.accounts.keys import NOBODY, new_key, prefix_of


def test_a_key_opens_its_own_row_only() -> None:
    (one, kept), (other, _) = new_key(), new_key()
    assert one != other
    assert kept.opens_with(one)
    assert not kept.opens_with(other)
    assert not NOBODY.opens_with(one)
    assert prefix_of(one) == kept.prefix


def test_one_character_off_does_not_open() -> None:
    key, kept = new_key()
    for i in range(len(key)):
        assert not kept.opens_with(key[:i] + ("x" if key[i] != "x" else "y") + key[i + 1 :])


def test_the_secret_is_not_kept() -> None:
    key, kept = new_key()
    secret = key.rpartition("-")[2]
    assert secret not in repr(astuple(kept))
    assert kept.digest != new_key()[1].digest


@given(st.text())
def test_no_text_breaks_the_reading(text: str) -> None:
    assert prefix_of(text) is None


@pytest.mark.parametrize("spoil", ["{}x", "pk{}", "{}\n", " {}"])
def test_a_key_with_something_more_is_none(spoil: str) -> None:
    assert prefix_of(spoil.format(new_key()[0])) is None
