"""jobs.encode under faults that really happen here: kill -9, a full disk, damaged and missing files.

After each the counts add up to the manifest, and the next run completes with no finished part made again.
"""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from test_ingest import in_this_process

from ssd1b.corpus import ingest as ingest_room
from ssd1b.corpus import latents, manifest
from ssd1b.corpus.encoder import PartEncoder
from ssd1b.corpus.ingest import ingest
from ssd1b.corpus.latents import encode
from ssd1b.recipes.encode import Encode
from ssd1b.recipes.ingest import Ingest

CONFIG = Encode(name="t", manifest="t", model="nano", splits=(), workers=1, batch_size=4)
ROWS, PARTS = 14, 4
PRELUDE = """
    import json, os, resource, subprocess, sys, time
    from pathlib import Path
    from ssd1b.corpus import latents, manifest
    from ssd1b.recipes.encode import Encode

    def in_this_process(work, make, **_):
        function = make()
        for item in work:
            yield json.loads(json.dumps(function(item)))

    latents.each = in_this_process
    config = Encode(name="t", manifest="t", model="nano", splits=(), workers=1, batch_size=4)
    folder = latents.folder_of("t")
"""
FULL = """
    try:
        latents.encode(config)
    except OSError as error:
        told = str(error)
    left = sorted(path.name for path in folder.rglob("*") if path.is_file())
    whole = [path.name for path in manifest.part_files(folder) if latents.pq.read_table(path, partitioning=None)]
"""


@pytest.fixture(autouse=True)
def four_parts(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A manifest of 14 shipped pictures in parts of 4, 4, 4 and 2, and no Ray."""
    monkeypatch.setattr(ingest_room, "each", in_this_process)
    monkeypatch.setattr(latents, "each", in_this_process)
    ingest(Ingest(name="t", source="shipped", buckets="nano", rows_limit=ROWS, part_rows=4))
    assert [pq.read_metadata(path).num_rows for path in manifest.parts("t")] == [4, 4, 4, 2]
    return home


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parts that are encoded in this process from now on."""
    seen: list[str] = []
    original = PartEncoder.__call__

    def noted(self: PartEncoder, work: dict[str, Any]) -> dict[str, Any]:
        seen.append(Path(work["part"]).name)
        return original(self, work)

    monkeypatch.setattr(PartEncoder, "__call__", noted)
    return seen


def ids(files: list[Path]) -> list[int]:
    return [one for path in files for one in pq.read_table(path, partitioning=None)["sample_id"].to_pylist()]


def check(result: dict[str, Any], rejected: dict[str, int]) -> None:
    """The counts add up, and what is stored is each row once, but for those rejected."""
    assert result["rejected"] == rejected
    assert result["rows_in"] == ROWS == result["rows_kept"] + sum(rejected.values())
    stored = ids(latents.parts("t"))
    assert len(stored) == len(set(stored)) == result["rows_kept"]


def program(text: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(PRELUDE) + textwrap.dedent(text)]


def test_a_kill_costs_the_part_at_work_and_nothing_else(encoded: list[str]) -> None:
    dying = """
        parquet, count = manifest.pq.write_table, 0

        def write_table(table, where, **told):
            global count
            count += 1
            parquet(table, where, **told)
            if count == 3:
                where.write_bytes(where.read_bytes()[:-100])
                print("half", flush=True)
                time.sleep(60)

        manifest.pq.write_table = write_table
        latents.encode(config)
    """
    with subprocess.Popen(program(dying), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(line == "half\n" for line in process.stdout), "the program ended before it was killed"
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL
    folder = latents.folder_of("t")
    (half,) = folder.rglob(".part-*")
    with pytest.raises(ValueError, match=r"[Pp]arquet"):
        pq.read_table(half, partitioning=None)
    finished = {path: path.stat().st_mtime_ns for path in manifest.part_files(folder)}
    assert len(finished) == 2
    with pytest.raises(ValueError, match="no finished latents"):
        latents.parts("t")

    result = encode(CONFIG)
    check(result, {})
    assert (result["parts_reused"], result["parts_encoded"], len(encoded)) == (2, 2, 2)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished, "a finished part was written again"
    assert not list(folder.rglob(".*"))


def test_a_full_disk_says_so_and_leaves_no_half_part(four_parts: Path) -> None:
    """A real small disk where the machine allows to mount one, else a limit on the size of files."""
    # a mount namespace of its own: the mount is seen by nobody else and ends with the program
    alone = ["unshare", "--mount", "--map-root-user"]
    mounts = not subprocess.run([*alone, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode
    if mounts:
        small = """
            folder.mkdir(parents=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48k", "none", folder], check=True)
        """
        large = 'subprocess.run(["mount", "-o", "remount,size=64m", folder], check=True)'
    else:
        small = """
            limits = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, limits[1]))  # bytes: two rows fit, four do not
            finished_first = manifest.part_files
            manifest.part_files = lambda folder: finished_first(folder)[::-1]
        """
        large = "resource.setrlimit(resource.RLIMIT_FSIZE, limits)"
    ending = f"{large}\nprint(json.dumps({{'told': told, 'left': left, 'whole': whole, **latents.encode(config)}}))"
    command = program("\n".join(textwrap.dedent(part) for part in (small, FULL, ending)))
    done = subprocess.run([*(alone if mounts else []), *command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert ("No space left" if mounts else "File too large") in result["told"]
    assert f"make room for {four_parts}/latents/t" in result["told"]
    assert result["left"] == sorted(result["whole"]), "something half-written is left"
    assert 1 <= len(result["left"]) < PARTS, "the fault did not come in mid-work"
    assert result["parts_reused"] == len(result["left"])
    assert result["rows_in"] == result["rows_kept"] == ROWS


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def flip(path: Path) -> None:
    """Change one bit of a stored picture, where no decoder need notice."""
    start = pq.read_metadata(path).row_group(0).column(manifest.SCHEMA.get_field_index("image")).data_page_offset
    data = bytearray(path.read_bytes())
    data[start + 2000] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
def test_a_damaged_part_of_the_manifest_is_counted_and_the_rest_goes_on(damage: Any, encoded: list[str]) -> None:
    victim = manifest.parts("t")[1]
    sound, lost = victim.read_bytes(), set(ids([victim]))
    damage(victim)
    result = encode(CONFIG)
    check(result, {"unreadable_shard": 4})
    assert not lost & set(ids(latents.parts("t")))
    assert [line.startswith(victim.name) for line in result["unreadable"]] == [True] * (damage is not Path.unlink)
    assert encode(CONFIG)["rejected"] == {"unreadable_shard": 4}, "a second run counts the same"

    encoded.clear()
    victim.write_bytes(sound)
    check(encode(CONFIG), {})
    assert encoded == [victim.name]


def test_a_damaged_row_group_costs_its_own_rows(encoded: list[str]) -> None:
    """And its part is made again once it can be read."""
    victim = manifest.parts("t")[0]
    sound = victim.read_bytes()
    table = pq.read_table(victim, partitioning=None)
    manifest.write_table(table, victim, row_group_rows=3)
    flip(victim)
    result = encode(CONFIG)
    check(result, {"unreadable_shard": 3})
    assert victim.name in {path.name for path in latents.parts("t")}
    assert "row group 0" in result["unreadable"][0]
    victim.write_bytes(sound)
    encoded.clear()
    check(encode(CONFIG), {})
    assert encoded == [victim.name]


def test_a_damaged_part_of_the_latents_is_made_again(encoded: list[str]) -> None:
    encode(CONFIG)
    victim = latents.parts("t")[2]
    cut(victim)
    encoded.clear()
    check(encode(CONFIG), {})
    assert encoded == [victim.name]
