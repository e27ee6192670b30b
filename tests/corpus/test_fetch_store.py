"""What was fetched is found again after a kill at any byte, and nothing else is."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssd1b.corpus.fetch.failure import REMEMBERED, Failure
from ssd1b.corpus.fetch.store import Kept, Store, write_all
from ssd1b.corpus.reasons import Reason

GONE = Failure(reason=Reason.URL_GONE, detail="status 404")


def reopened(folder: Path, **changes: object) -> Store:
    return Store(folder, **{"most_bytes": 1000, **changes})  # type: ignore[arg-type]


def test_pictures_and_failures_are_found_again(tmp_path: Path) -> None:
    with reopened(tmp_path) as store:
        for i in range(20):
            store.keep(f"http://a/{i}", bytes([i]) * (i + 1))
        store.fail("http://a/gone", GONE)
        store.fail("http://a/slow", Failure(reason=Reason.URL_TIMEOUT))
    again = reopened(tmp_path)
    for i in range(20):
        kept = again.get(f"http://a/{i}")
        assert isinstance(kept, Kept)
        assert again.read(kept) == bytes([i]) * (i + 1)
    assert again.get("http://a/gone") == GONE
    assert again.get("http://a/slow") is None, "what may pass is asked again"
    assert again.get("http://a/never") is None
    assert reopened(tmp_path, again=True).get("http://a/gone") is None


@given(cut=st.integers(0, 2000), junk=st.binary(max_size=40))
def test_an_index_that_breaks_off_anywhere_loses_only_its_last_line(
    tmp_path_factory: pytest.TempPathFactory, cut: int, junk: bytes
) -> None:
    folder = tmp_path_factory.mktemp("store")
    with reopened(folder) as store:
        for i in range(10):
            store.keep(f"http://a/{i}", b"x" * i)
    (index,) = folder.glob("*.index")
    whole = index.read_bytes()
    index.write_bytes(whole[:cut] + junk)
    ends = [i for i in range(len(whole)) if whole[i : i + 1] == b"\n" and i and whole[i - 1 : i] != b"\n"]
    full_lines = sum(end < cut for end in ends)
    found = [store_knows(folder, i) for i in range(10)]
    assert found[:full_lines] == [True] * full_lines
    assert sum(found) <= full_lines + 1


def store_knows(folder: Path, i: int) -> bool:
    store = reopened(folder)
    kept = store.get(f"http://a/{i}")
    return isinstance(kept, Kept) and store.read(kept) == b"x" * i


def test_what_is_appended_after_a_torn_line_is_whole(tmp_path: Path) -> None:
    with reopened(tmp_path) as store:
        store.keep("http://a/1", b"one")
        assert store.writer is not None
        write_all(store.writer[1], b"\nhalf a li")  # as a full disk leaves it
        store.keep("http://a/2", b"two")
    again = reopened(tmp_path)
    assert isinstance(again.get("http://a/1"), Kept)
    assert isinstance(again.get("http://a/2"), Kept)


def test_torn_bytes_are_not_taken_for_a_picture(tmp_path: Path) -> None:
    with reopened(tmp_path) as store:
        store.keep("http://a/1", b"a whole picture")
    (pictures,) = tmp_path.glob("*.pictures")
    pictures.write_bytes(b"a whole pic")
    again = reopened(tmp_path)
    kept = again.get("http://a/1")
    assert isinstance(kept, Kept)
    assert again.read(kept) is None
    pictures.unlink()
    assert again.read(kept) is None


def test_two_writers_at_once_do_no_harm(tmp_path: Path) -> None:
    with reopened(tmp_path) as one, reopened(tmp_path) as other:
        for i in range(5):
            one.keep(f"http://a/{i}", f"one{i}".encode())
            other.keep(f"http://b/{i}", f"other{i}".encode())
            other.fail("http://a/0", GONE)
    again = reopened(tmp_path)
    kept = [again.get(f"http://{host}/{i}") for host in "ab" for i in range(5)]
    assert [again.read(one) for one in kept if isinstance(one, Kept)] == [
        f"{who}{i}".encode() for who in ("one", "other") for i in range(5)
    ]


def test_a_picture_that_was_too_large_is_asked_again_under_a_larger_limit(tmp_path: Path) -> None:
    with reopened(tmp_path) as store:
        store.fail("http://a/1", Failure(reason=Reason.URL_TOO_LARGE))
    assert isinstance(reopened(tmp_path).get("http://a/1"), Failure)
    assert reopened(tmp_path, most_bytes=2000).get("http://a/1") is None


def test_a_full_disk_is_an_error_and_nothing_is_known_of_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def full(descriptor: int, _data: bytes) -> int:
        calls.append(descriptor)
        raise OSError(28, "No space left on device")

    with reopened(tmp_path) as store:
        store.keep("http://a/1", b"one")
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(OSError, match="No space left"):
                store.keep("http://a/2", b"two")
        assert calls, "the fault was never reached"
        assert store.get("http://a/2") is None
        store.keep("http://a/3", b"three")
    again = reopened(tmp_path)
    kept = again.get("http://a/3")
    assert isinstance(kept, Kept)
    assert again.read(kept) == b"three"
    assert again.get("http://a/2") is None


def test_only_what_does_not_pass_is_remembered() -> None:
    passing = {
        Reason.URL_TIMEOUT, Reason.URL_DNS, Reason.URL_SERVER_ERROR, Reason.URL_RATE_LIMITED, Reason.HOST_DEAD,
        Reason.URL_UNREACHABLE, Reason.ROBOTS_DISALLOWED,
    }  # fmt: skip
    assert not passing & REMEMBERED
