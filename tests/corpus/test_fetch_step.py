"""The step within ingest: who is fetched, in which order, and what a kill leaves to do."""

import dataclasses
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawn import encoded, gradient, png
from PIL import Image
from web import Web, hash_of, served

from ssd1b.corpus import ingest as room
from ssd1b.corpus.fetch.client import Network
from ssd1b.corpus.fetch.step import with_pictures
from ssd1b.corpus.pair import Pair
from ssd1b.corpus.reasons import Reason, Reject
from ssd1b.corpus.sources import read, shards
from ssd1b.home import home as storage
from ssd1b.recipes.filters import Filters
from ssd1b.recipes.ingest import Fetch, Ingest
from ssd1b.sizes import Size

FETCH = Fetch(
    contact="me@example.org", host_gap_s=0, connect_s=1, read_s=1, total_s=2, backoff_s=0.01, attempts=2, ahead=8
)
NANO = Ingest(name="t", source="laion", buckets="nano", fetch=FETCH)


@pytest.fixture
def web() -> Iterator[Web]:
    with served() as found:
        yield found


def network(web: Web) -> Network:
    return Network(allow_private=True, resolve=web.resolve)


def pair(key: str, url: str, **changes: Any) -> Pair:
    return Pair(**{"source": "s", "key": key, "captions": ("a thing",), "image": None, "url": url, **changes})


def arrive(web: Web, items: list[Pair | Reject], config: Ingest = NANO) -> list[Pair | Reject]:
    return list(with_pictures(items, config, storage() / "kept/shard", network(web)))


@pytest.mark.usefixtures("home")
def test_pictures_arrive_in_the_order_of_their_rows(web: Web) -> None:
    items: list[Pair | Reject] = [
        pair(str(i), web.url(f"slow-ok{i}" if i % 3 == 0 else f"ok{i}")) if i % 5 else
        Reject(reason=Reason.CAPTION_EMPTY, key=str(i))
        for i in range(40)
    ]  # fmt: skip
    found = arrive(web, items)
    assert [one.key for one in found] == [str(i) for i in range(40)]
    for i, one in enumerate(found):
        if i % 5:
            path = f"slow-ok{i}" if i % 3 == 0 else f"ok{i}"
            assert isinstance(one, Pair)
            assert one.image == png(seed=hash_of(path))


@pytest.mark.usefixtures("home")
def test_what_metadata_rules_out_is_never_asked_for(web: Web) -> None:
    config = dataclasses.replace(
        NANO, styles=("photo",), filters=Filters(min_clip_score=0.3, max_unsafe=0.5, min_side_px=128)
    )
    good = {"style": "photo", "clip_score": 0.4, "unsafe": 0.1, "declared_size": Size(200, 200)}
    items: list[Pair | Reject] = [
        pair("good", web.url("ok-good"), **good),
        pair("other", web.url("ok-other"), **{**good, "style": "emoji"}),
        pair("unlike", web.url("ok-unlike"), **{**good, "clip_score": 0.1}),
        pair("unsafe", web.url("ok-unsafe"), **{**good, "unsafe": 0.9}),
        pair("small", web.url("ok-small"), **{**good, "declared_size": Size(100, 300)}),
        pair("mute", web.url("ok-mute"), **{**good, "captions": ("!",)}),
    ]
    found = arrive(web, items, config)
    reasons = [one.reason if isinstance(one, Reject) else one.image is not None for one in found]
    assert reasons == [
        True, False, Reason.CLIP_SCORE_LOW, Reason.UNSAFE, Reason.SIDE_TOO_SHORT, Reason.CAPTION_EMPTY,
    ]  # fmt: skip
    assert {name for name in web.asked if "ok-" in name} == {"pictures.test/ok-good"}


@pytest.mark.usefixtures("home")
def test_a_rerun_asks_only_for_what_may_have_changed(web: Web) -> None:
    items: list[Pair | Reject] = [
        pair(path, web.url(path, f"{path}.test")) for path in ("ok1", "ok2", "gone", "noai", "broken")
    ]
    first = arrive(web, items)
    before = web.asked.copy()
    second = arrive(web, items)
    assert second == first
    asked = web.asked - before
    assert {name for name in asked if "robots" not in name} == {"broken.test/broken"}


@pytest.mark.usefixtures("home")
def test_equal_urls_are_fetched_once(web: Web) -> None:
    found = arrive(web, [pair(str(i), web.url("ok")) for i in range(20)])
    assert all(isinstance(one, Pair) and one.image for one in found)
    assert web.asked["pictures.test/ok"] == 1


@pytest.mark.usefixtures("home")
def test_other_bytes_than_listed_are_a_reject(web: Web) -> None:
    right = hashlib.sha256(png(seed=hash_of("ok"))).hexdigest()
    found = arrive(web, [pair("a", web.url("ok"), sha256=right.upper()), pair("b", web.url("ok"), sha256="0" * 64)])
    assert isinstance(found[0], Pair)
    assert isinstance(found[1], Reject)
    assert found[1].reason is Reason.SHA256_MISMATCH


@pytest.mark.usefixtures("home")
def test_a_damaged_store_is_mended_by_fetching_again(web: Web, home: Path) -> None:
    arrive(web, [pair("a", web.url("ok"))])
    (pictures,) = home.rglob("*.pictures")
    pictures.write_bytes(b"damaged")
    (found,) = arrive(web, [pair("a", web.url("ok"))])
    assert isinstance(found, Pair)
    assert found.image == png(seed=hash_of("ok"))
    assert web.asked["pictures.test/ok"] == 2


@pytest.mark.usefixtures("home")
def test_who_stops_early_leaves_no_thread_behind(web: Web) -> None:
    arriving = with_pictures(
        [pair(str(i), web.url(f"slow-ok{i}")) for i in range(100)], NANO, storage() / "kept/shard", network(web)
    )
    assert isinstance(next(arriving), Pair)
    arriving.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name == "fetch"]


def test_a_mirror_is_looked_in_first(web: Web, home: Path) -> None:
    mirror = home / "mirror"
    (mirror / "cdn.test/a").mkdir(parents=True)
    (mirror / "cdn.test/a/1.png").write_bytes(png(seed=1))
    (mirror / "secret.png").write_bytes(png(seed=2))
    urls = ["https://cdn.test/a/1.png?ex=1", "https://cdn.test/../secret.png", "https://cdn.test/%2e%2e/secret.png",
            "https://cdn.test/a/2.png", "not a url"]  # fmt: skip
    config = dataclasses.replace(NANO, fetch=Fetch(mirror=str(mirror)))
    found = arrive(web, [pair(str(i), url) for i, url in enumerate(urls)], config)
    assert isinstance(found[0], Pair)
    assert found[0].image == png(seed=1)
    assert {one.reason for one in found[1:] if isinstance(one, Reject)} == {Reason.IMAGE_MISSING}
    assert len(found[1:]) == 4
    assert not web.asked, "without a contact nothing is fetched"


@pytest.mark.usefixtures("home")
def test_a_sheet_is_fetched_once_and_cut_into_four(home: Path, web: Web) -> None:
    sheet = Image.new("RGB", (256, 256))
    quarters = [gradient(128, 128, seed) for seed in (10, 80, 150, 220)]
    for number, quarter in enumerate(quarters):
        sheet.paste(quarter, (128 * (number % 2), 128 * (number // 2)))
    (home / "mirror/cdn.test").mkdir(parents=True)
    (home / "mirror/cdn.test/sheet.png").write_bytes(encoded(sheet))
    config = dataclasses.replace(NANO, fetch=Fetch(mirror=str(home / "mirror")))
    items: list[Pair | Reject] = [pair(f"k/{i}", "https://cdn.test/sheet.png", quadrant=i) for i in range(4)]
    items += [pair(f"ok/{i}", web.url("ok"), quadrant=i) for i in range(4)]
    for number, one in enumerate(arrive(web, items, config)[:4]):
        assert isinstance(one, Pair)
        assert one.image is not None
        assert Image.open(io.BytesIO(one.image)).convert("RGB").tobytes() == quarters[number].tobytes()


def test_a_recipe_says_who_asks(tmp_path: Path) -> None:
    pq.write_table(pa.table({"URL": ["http://a.test/"], "TEXT": ["a cat"]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"fetch\.contact="):
        shards(Ingest(name="t", source="laion", path=str(tmp_path)))
    with pytest.raises(ValueError, match="absolute path"):
        shards(Ingest(name="t", source="laion", path=str(tmp_path), fetch=Fetch(mirror="/no/where")))


KILLED = """
import sys
from pathlib import Path
from ssd1b.corpus.fetch.client import Network
from ssd1b.corpus.fetch.step import with_pictures
from ssd1b.corpus.pair import Pair
from ssd1b.home import home
from ssd1b.recipes.ingest import Fetch, Ingest

async def resolve(host, port):
    return ["127.0.0.1"]

urls = [f"http://host{i % 5}.test:{sys.argv[1]}/slow-ok{i}" for i in range(100)]
items = [Pair(source="s", key=url, captions=("a thing",), image=None, url=url) for url in urls]
config = Ingest(name="t", source="laion", buckets="nano", fetch=Fetch(
    contact="me@example.org", host_gap_s=0, ahead=200, per_host=2, concurrency=10))
for pair in with_pictures(items, config, home() / "kept/shard", Network(allow_private=True, resolve=resolve)):
    print(pair.key, flush=True)
"""


def test_after_kill_9_only_what_is_missing_is_fetched(web: Web, home: Path) -> None:
    """The killed process had a hundred rows to fetch; it and its successor together ask for few of them twice."""
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(web.port)],
        stdout=subprocess.PIPE, env={**os.environ, "SSD1B_HOME": str(home)}, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert child.stdout is not None
    for _ in range(20):
        assert child.stdout.readline()
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    time.sleep(0.3)  # what the server still tells a dead client
    before = Counter({name: times for name, times in web.asked.items() if "robots" not in name})
    assert 20 <= len(before) < 100, "killed too early or too late"
    items: list[Pair | Reject] = [pair(str(i), f"http://host{i % 5}.test:{web.port}/slow-ok{i}") for i in range(100)]
    found = arrive(web, items)
    assert [one.image for one in found if isinstance(one, Pair)] == [
        png(seed=hash_of(f"slow-ok{i}")) for i in range(100)
    ]
    twice = [name for name, times in web.asked.items() if "robots" not in name and times > 1]
    assert len(twice) <= 10, "only what was on the way when it was killed"
    assert len(web.asked) - len([name for name in web.asked if "robots" in name]) == 100


def in_this_process(work: list[Any], make: Callable[[], Callable[[Any], Any]], **_: Any) -> Iterator[Any]:
    function = make()
    for item in work:
        yield json.loads(json.dumps(function(item)))


def test_a_corpus_of_urls_becomes_a_manifest_and_every_row_has_its_reason(
    web: Web, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = ["ok1", "ok22", "ok333", "gone", "secret", "page.jpg", "noai", "loop", "broken", "cut", "large"]
    table = pa.table(
        {
            "URL": [web.url(path, f"{path}.test") for path in paths]
            + ["ftp://x.test/", web.url("x", "x.nowhere.test")],
            "TEXT": [f"thing {i}" for i in range(13)],
            "WIDTH": [128] * 13,
            "HEIGHT": [128] * 13,
            "hash": list(range(13)),
        }
    )
    (home / "corpus").mkdir()
    pq.write_table(table, home / "corpus/a.parquet", row_group_size=7)
    config = dataclasses.replace(NANO, path=str(home / "corpus"), fetch=dataclasses.replace(FETCH, most_bytes=100_000))
    monkeypatch.setattr(room, "each", in_this_process)
    monkeypatch.setattr(room, "read", partial(read, network=network(web)))
    result = room.ingest(config)
    assert result["rows_kept"] == 3
    assert result["rows_in"] == 13
    assert result["rejected"] == dict.fromkeys(
        ["url_malformed", "url_dns", "url_unreachable", "url_gone", "url_forbidden", "url_server_error",
         "url_too_large", "url_not_an_image", "redirect_refused", "noai"], 1
    )  # fmt: skip
