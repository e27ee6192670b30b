"""The benchmark of the metadata path at a size that takes seconds: its parts fit together and its figures are sane."""

import json
import sys
from pathlib import Path

import pytest

from ssd1b.corpus import synthetic
from ssd1b.elastic import scale
from ssd1b.elastic.scale import corpus_scale, main, memory, part, table
from ssd1b.recipes.benchmark import CorpusScale

ROWS = 40_000


def test_planted_counts_add_up() -> None:
    planted = synthetic.planted(400)
    assert sum(planted.values()) == 400
    assert planted["side_too_short"] == 30
    with pytest.raises(ValueError, match="multiple of 40"):
        synthetic.planted(41)


def test_synthetic_rows_are_the_same_for_a_seed_only(tmp_path: Path) -> None:
    digests = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        synthetic.write(tmp_path / name, 400, seed)
        digests.append([path.read_bytes() for path in sorted((tmp_path / name).iterdir())])
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.timeout(120)
def test_the_benchmark_runs_whole(tmp_path: Path) -> None:
    result = corpus_scale(
        CorpusScale(rows=ROWS, scratch=str(tmp_path), part_rows=5000, resume_at=(0.5,), near_duplicates=False)
    )
    assert list(tmp_path.iterdir()) == [], "what was written is gone"
    small, large = result["sizes"]
    assert (small["rows"], large["rows"]) == (ROWS // 10, ROWS)
    assert large["tally"] == synthetic.planted(ROWS)
    samples = [figures["samples"] for name, figures in large["parts"].items() if "samples" in figures]
    assert len(set(samples)) == 2, "two places of the epoch, two batches"
    assert all(figures["peak_bytes"] > 0 and figures["seconds"] < 60 for figures in large["parts"].values())
    json.dumps(result)
    lines = table(result)
    assert any("resume at 50%" in line for line in lines)


def test_a_batch_is_the_same_in_another_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    synthetic.write(tmp_path / "in", 8000)
    part("candidates", corpus=str(tmp_path / "in"), out=str(tmp_path / "out"), part_rows=1000)
    order = {"folder": str(tmp_path / "out"), "global_batch": 32, "slices": 8, "seed": 3, "at": 0.5}
    elsewhere = part("batch", **order)
    main("batch", json.dumps(order))
    here = json.loads(capsys.readouterr().out)
    assert here["samples"] == elsewhere["samples"]
    assert here["step"] == elsewhere["step"] > 0


def test_the_twins_among_hashes_of_chance_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    main("near", json.dumps({"rows": 20_000, "distance": 4, "seed": 0}))
    assert json.loads(capsys.readouterr().out)["found"] == 20_000 // 50 - 1


def test_a_part_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no latents to train on"):
        part("batch", folder=str(tmp_path), global_batch=8, slices=2, seed=0, at=0.0)


def test_a_funnel_that_differs_from_what_was_planted_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale.synthetic, "planted", lambda rows: {"kept": rows})
    with pytest.raises(RuntimeError, match="does not name what was planted"):
        corpus_scale(CorpusScale(rows=4000, scratch=str(tmp_path)))


def test_rows_must_be_whole_cycles() -> None:
    with pytest.raises(ValueError, match="multiple of 400"):
        corpus_scale(CorpusScale(rows=1000))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_read_in_bytes() -> None:
    before = memory("VmRSS")
    ballast = bytearray(64 << 20)
    ballast[::4096] = b"x" * len(ballast[::4096])
    assert 48 << 20 < memory("VmRSS") - before < 96 << 20
    assert memory("VmRSS") <= memory("VmHWM")
