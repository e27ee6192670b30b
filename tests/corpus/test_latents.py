"""A run of jobs.encode: the VAE's own numbers, nothing encoded twice, nothing stale kept."""

import dataclasses
import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from test_ingest import in_this_process

from ssd1b.corpus import decoding, encoder, latents, manifest, pipeline
from ssd1b.corpus import ingest as ingest_room
from ssd1b.corpus.decoding import ThreadDecoders
from ssd1b.corpus.encoder import PartEncoder
from ssd1b.corpus.ingest import ingest
from ssd1b.corpus.latents import encode
from ssd1b.models.files import load_vae
from ssd1b.recipes.encode import Encode
from ssd1b.recipes.ingest import Ingest

CONFIG = Encode(name="t", manifest="t", model="nano", splits=(), workers=1, batch_size=4)


@pytest.fixture(autouse=True)
def eight_rows(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A manifest of 8 shipped pictures in two parts, and no Ray."""
    monkeypatch.setattr(ingest_room, "each", in_this_process)
    monkeypatch.setattr(latents, "each", in_this_process)
    ingest(Ingest(name="t", source="shipped", buckets="nano", rows_limit=8, part_rows=4))
    return home


def rows_of(name: str) -> list[dict[str, Any]]:
    return [row for part in latents.parts(name) for row in pq.read_table(part, partitioning=None).to_pylist()]


def test_latents_are_the_vaes_posterior_of_pixels_from_minus_one_to_one() -> None:
    result = encode(CONFIG)
    assert (result["rows_in"], result["rows_kept"], result["parts_encoded"]) == (8, 8, 2)
    assert result["vae"] == latents.vae_identity("nano")["vae"]
    source = pq.read_table(manifest.parts("t")[0], partitioning=None).to_pylist()[0]
    row = next(row for row in rows_of("t") if row["sample_id"] == source["sample_id"])
    pixels_HWC = np.asarray(Image.open(io.BytesIO(source["image"])).convert("RGB"))
    pixels_BCHW = torch.from_numpy(pixels_HWC.copy()).permute(2, 0, 1)[None] / 127.5 - 1
    vae = load_vae("nano")
    with torch.inference_mode():
        posterior = vae.encode(pixels_BCHW).latent_dist
    for name in ("mean", "std"):
        stored = np.frombuffer(row[name], np.float16).reshape(4, 16, 16)
        expected = getattr(posterior, name)[0].numpy() * vae.config.scaling_factor
        np.testing.assert_allclose(stored, expected, rtol=2e-3, atol=2e-3)
    assert row["captions"] == source["captions"]
    assert [row[name] for name in ("original_height", "crop_top", "crop_left", "target_width")] == [128, 0, 0, 128]


def test_a_finished_part_is_not_encoded_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    encode(CONFIG)
    before = rows_of("t")
    latents.parts("t")[1].unlink()
    encoded: list[str] = []
    original = PartEncoder.__call__

    def counted(self: PartEncoder, work: dict[str, str]) -> dict[str, int]:
        encoded.append(work["part"])
        return original(self, work)

    monkeypatch.setattr(PartEncoder, "__call__", counted)
    result = encode(CONFIG)
    assert (result["parts_encoded"], result["parts_reused"], len(encoded)) == (1, 1, 1)
    assert rows_of("t") == before
    assert encode(CONFIG)["parts_reused"] == 2
    assert len(encoded) == 1


def test_another_selection_makes_new_parts_and_drops_the_old() -> None:
    encode(CONFIG)
    split = rows_of("t")[0]["split"]
    result = encode(dataclasses.replace(CONFIG, splits=(split,)))
    assert result["parts_reused"] == 0
    assert {row["split"] for row in rows_of("t")} == {split}
    assert result["rows_kept"] + result["not_selected"] == 8


def test_a_picture_that_is_gone_is_counted(eight_rows: Path) -> None:
    folder = eight_rows / "pictures"
    folder.mkdir()
    for i, row in enumerate(pq.read_table(manifest.parts("t")[0], partitioning=None).to_pylist()):
        (folder / f"{i}.webp").write_bytes(row["image"])
    lines = [f'{{"file_name": "{i}.webp", "text": "thing {i}"}}' for i in range(4)]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    ingest(Ingest(name="t", source="folder", path=str(folder), buckets="nano", embed=False))
    (folder / "2.webp").unlink()
    (folder / "3.webp").write_bytes(b"junk")
    result = encode(CONFIG)
    assert result["rejected"] == {"image_missing": 1, "image_corrupt": 1}
    assert result["rows_kept"] == 2


def test_unfinished_latents_are_not_read() -> None:
    with pytest.raises(ValueError, match=r"no finished latents 't'.*run jobs\.encode"):
        latents.parts("t")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"manifest": "nope"}, "no manifest 'nope'"),
        ({"styles": ("3d rendr",)}, "did you mean '3d render'"),
        ({"model": "nano+nope"}, "no expert 'nope'"),
    ],
)
def test_bad_recipes_say_what_to_do(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        encode(dataclasses.replace(CONFIG, **change))


def test_the_next_batch_is_decoded_while_the_vae_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """The VAE is held up until a picture of the next batch has come in, which in turn never waits for the VAE."""
    decoded, prepare, posterior = threading.Semaphore(0), decoding.prepare, PartEncoder.posterior
    batches: list[int] = []

    def noted(row: dict[str, Any], **told: Any) -> Any:
        found = prepare(row, **told)
        decoded.release()
        return found

    def held_up(self: PartEncoder, pixels_BCHW: torch.Tensor) -> Any:
        batches.append(len(pixels_BCHW))
        for _ in range(2 * len(pixels_BCHW) if len(batches) == 1 else 0):
            assert decoded.acquire(timeout=10), "nothing is decoded while the VAE works"
        return posterior(self, pixels_BCHW)

    monkeypatch.setattr(decoding, "prepare", noted)
    monkeypatch.setattr(PartEncoder, "posterior", held_up)
    assert encode(dataclasses.replace(CONFIG, batch_size=2))["rows_kept"] == 8
    assert batches == [2, 2, 2, 2]


def test_pictures_decoded_elsewhere_leave_the_cpus_to_the_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def noted(work: Any, make: Any, **wanted: Any) -> Any:
        asked.append(wanted)
        return in_this_process(work, make)

    monkeypatch.setattr(latents, "each", noted)
    config = dataclasses.replace(CONFIG, decode_threads=3)
    encode(config)
    monkeypatch.setattr(encoder, "decoders", ThreadDecoders)  # who decodes is not asked here
    encode(dataclasses.replace(config, name="u", decode_tasks=2))
    assert [(wanted["cpus"], wanted["gpus"]) for wanted in asked] == [(3, 0.0), (0.0, 0.0)]
    assert rows_of("u") == rows_of("t")


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_actors_give_the_same_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    encode(CONFIG)
    monkeypatch.setattr(latents, "each", pipeline.each)
    encode(dataclasses.replace(CONFIG, name="by_actors", workers=2))
    assert rows_of("by_actors") == rows_of("t")
    encode(dataclasses.replace(CONFIG, name="by_tasks", workers=2, decode_tasks=3))
    assert rows_of("by_tasks") == rows_of("t")
