"""A corpus of URLs through real Ray tasks: hosts that hang, die, refuse and mislead, and a job that is killed."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import town as places
from drawn import png
from town import Town, town

from ssd1b.corpus import manifest
from ssd1b.corpus.fetch.store import whole_lines
from ssd1b.corpus.ingest import ingest
from ssd1b.recipes.ingest import Fetch, Ingest

SHARDS = 6
ROWS = {
    places.FAST: 6, places.SLOW: 2, places.FORBIDS: 1, places.LOST: 1, places.BROKEN: 1, places.LEADS_IN: 1,
    places.LEADS_ON: 1, places.STALLS: 5, places.SILENT: 3, places.DEAD: 1, places.UNLISTED: 1,
}  # fmt: skip
"""Of each shard."""
LISTED = tuple(host for host in (*places.TALKS, places.SILENT, places.DEAD) if host != places.UNLISTED)
TIMEOUT_S, DEAD_AFTER, ATTEMPTS = 2.5, 3, 2
KILLED = """
from ssd1b.corpus.ingest import ingest
from ssd1b.recipes.filters import Filters
from ssd1b.recipes.ingest import Fetch, Ingest

ingest({config!r})
"""


@pytest.fixture
def hosts() -> Iterator[Town]:
    with town() as found:
        yield found


def corpus(folder: Path, hosts: Town, names: list[str], shard_rows: int) -> Path:
    """Write a corpus of URLs with row i at the host names[i], and so many rows a shard."""
    table = pa.table(
        {
            "URL": [hosts.url(host, number) for number, host in enumerate(names)],
            "TEXT": [f"thing {number}" for number in range(len(names))],
            "hash": list(range(len(names))),
        }
    )
    path = folder / "corpus.parquet"
    pq.write_table(table, path, row_group_size=shard_rows)
    return path


def fetching(hosts: Town, **changes: Any) -> Fetch:
    listed = tuple(f"{host}:{hosts.port}" for host in LISTED)
    told = {"contact": "me@example.org", "private_hosts": listed, "host_gap_s": 0.0, "backoff_s": 0.01}
    return Fetch(**{**told, **changes})  # type: ignore[arg-type]


def kept_pictures(name: str) -> dict[str, bytes]:
    """Return the pictures of a manifest by the path that they were to be fetched from; no path twice."""
    rows = [row for part in manifest.parts(name) for row in pq.read_table(part, partitioning=None).to_pylist()]
    found = {row["url"].rpartition("/")[2]: row["image"] for row in rows}
    assert len(found) == len(rows)
    return found


def times_by_shard(hosts: Town) -> dict[int, list[float]]:
    """Return when the pictures of each shard were asked for."""
    found: dict[int, list[float]] = {}
    for one in hosts.log:
        if one.path != "robots.txt":
            found.setdefault(int(one.path.removesuffix(".png")) // sum(ROWS.values()), []).append(one.at_s)
    return found


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_hosts_of_all_manners_and_a_rerun_that_asks_for_what_is_missing(home: Path, hosts: Town) -> None:
    """One request at a time to a host, so that of five rows of one that stalls just three wait in vain."""
    names = [host for _ in range(SHARDS) for host, rows in ROWS.items() for _ in range(rows)]
    path = corpus(home, hosts, names, sum(ROWS.values()))
    limits = {"connect_s": TIMEOUT_S, "read_s": TIMEOUT_S, "total_s": TIMEOUT_S, "attempts": ATTEMPTS}
    fetch = fetching(hosts, per_host=1, dead_after=DEAD_AFTER, **limits)
    config = Ingest(name="t", source="laion", path=str(path), buckets="nano", fetch=fetch)

    first = ingest(config)
    per_shard = {
        "url_forbidden": 1, "url_gone": 1, "url_server_error": 1, "redirect_refused": 1, "url_private": 1,
        "url_unreachable": 1, "url_timeout": DEAD_AFTER + ROWS[places.SILENT],
        "host_dead": ROWS[places.STALLS] - DEAD_AFTER,
    }  # fmt: skip
    assert first["rejected"] == {reason: SHARDS * rows for reason, rows in per_shard.items()}
    assert first["rows_in"] == len(names) == first["rows_kept"] + sum(first["rejected"].values())
    asked = Counter(hosts.pictures())
    by_host = Counter(name.partition("/")[0] for name in asked.elements())
    once = {host: SHARDS * ROWS[host] for host in (places.SLOW, places.FORBIDS, places.LOST, places.LEADS_IN)}
    fast = SHARDS * (ROWS[places.FAST] + ROWS[places.LEADS_ON])
    assert by_host == {
        **once, places.FAST: fast, places.LEADS_ON: SHARDS, places.BROKEN: SHARDS * ATTEMPTS,
        places.STALLS: SHARDS * DEAD_AFTER,
    }  # fmt: skip
    took_s = [max(times) - min(times) for times in times_by_shard(hosts).values()]
    assert len(took_s) == SHARDS
    assert max(took_s) < DEAD_AFTER * TIMEOUT_S, "good hosts wait for bad ones, or those that stall for one another"

    seen = len(hosts.log)
    hosts.mended.set()
    second = ingest(config)
    again = Counter(hosts.pictures(seen))
    wanted = {hosts.url(host, i) for i, host in enumerate(names) if host in (places.BROKEN, places.STALLS)}
    assert again == Counter({url.partition("//")[2].replace(f":{hosts.port}", ""): 1 for url in wanted})
    passed = ("url_server_error", "host_dead")
    left = {reason: SHARDS * rows for reason, rows in per_shard.items() if reason not in passed}
    assert second["rejected"] == {**left, "url_timeout": SHARDS * ROWS[places.SILENT]}
    assert second["rows_in"] == len(names) == second["rows_kept"] + sum(second["rejected"].values())
    good = (places.FAST, places.SLOW, places.LEADS_ON, places.BROKEN, places.STALLS)
    assert kept_pictures("t") == {f"{i}.png": png(seed=i) for i, host in enumerate(names) if host in good}
    assert set(hosts.sent.values()) == {1}, "a picture was sent twice"
    print(
        f"shards took {min(took_s):.1f} to {max(took_s):.1f} s, the runs {first['seconds']} and {second['seconds']} s"
    )


@pytest.mark.ray
def test_a_job_that_is_killed_in_mid_fetch_fetches_nothing_twice(ray_cluster: Any, home: Path, hosts: Town) -> None:
    """Half of the pictures are on disk when the job dies, the others on their way: those alone are asked for again."""
    cycle = [places.FAST, places.SLOW, places.GATED, places.GATED_TOO]
    names = [cycle[i % 4] for i in range(60)]
    path = corpus(home, hosts, names, shard_rows=15)
    config = Ingest(
        name="t", source="laion", path=str(path), buckets="nano", fetch=fetching(hosts, per_host=2, read_s=50.0)
    )
    open_to_all = {f"{i}.png" for i, host in enumerate(names) if host not in (places.GATED, places.GATED_TOO)}
    assert len(open_to_all) == 30

    def fetched() -> int:
        return sum(1 for index in (home / "fetched").rglob("*.index") for _ in whole_lines(index))

    job = subprocess.Popen(
        [sys.executable, "-c", KILLED.format(config=config)], stdout=subprocess.DEVNULL, cwd=Path(__file__).parents[2],
        env={**os.environ, "RAY_ADDRESS": ray_cluster.address},
    )  # fmt: skip
    try:
        until(lambda: fetched() == len(open_to_all) and hosts.waiting == 16, job)
    finally:
        job.kill()
    assert job.wait(10) == -signal.SIGKILL
    killed = time.monotonic()
    until(lambda: hosts.waiting == 0)  # the tasks have died with their job
    print(f"the tasks hung up {time.monotonic() - killed:.1f} s after their job was killed")
    assert set(hosts.sent) == open_to_all
    assert fetched() == len(open_to_all), "the tasks went on without their job"

    seen = len(hosts.log)
    hosts.gate.set()
    result = ingest(config)
    assert (result["rows_in"], result["rows_kept"], result["rejected"]) == (60, 60, {})
    assert kept_pictures("t") == {f"{i}.png": png(seed=i) for i in range(60)}
    assert hosts.sent == Counter({f"{i}.png": 1 for i in range(60)}), "a picture was fetched twice"
    assert not {name.rpartition("/")[2] for name in hosts.pictures(seen)} & open_to_all, "what was there was asked for"
    assert sorted(one.name for one in (home / "manifest").iterdir()) == ["t"], "the killed job's half manifest is left"


def until(found: Callable[[], bool], job: "subprocess.Popen[bytes] | None" = None) -> None:
    end = time.monotonic() + 45
    while not found():
        assert job is None or job.poll() is None, "the job ended before it was killed"
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
