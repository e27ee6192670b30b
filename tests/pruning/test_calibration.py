"""Calibration inputs: real pictures, every timestep alike, the same each time."""

from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline

from ssd1b.models.files import load_pipeline
from ssd1b.pruning.calibration import Example, asks, of_corpus, of_latents
from tests.training.synthetic import write_latents


@pytest.fixture(scope="module")
def pipeline() -> DiffusionPipeline:
    return load_pipeline("nano")


def test_drawings_become_latents_at_the_models_own_size(pipeline: DiffusionPipeline) -> None:
    examples = of_corpus(pipeline, 3)
    assert [tuple(each.latent_CHW.shape) for each in examples] == [(4, 16, 16)] * 3
    assert {each.time_ids for each in examples} == {(128, 128, 0, 0, 128, 128)}
    assert len({each.caption for each in examples}) == 3
    assert all(0.2 < float(each.latent_CHW.std()) < 3 for each in examples)
    again = of_corpus(pipeline, 3)
    assert all(torch.equal(a.latent_CHW, b.latent_CHW) for a, b in zip(examples, again, strict=True))


def test_calls_cover_the_schedule_and_repeat(pipeline: DiffusionPipeline) -> None:
    clean = [Example(torch.full((4, 16, 16), 2.0), f"{i} apples", (128, 128, 0, 0, 128, 128)) for i in range(20)]
    found = asks(pipeline, clean, seed=1)
    steps = torch.cat([each["timestep"] for each in found]).sort().values
    assert steps.tolist() == [25 + 50 * i for i in range(20)]
    assert all(each["timestep"].min() < 500 < each["timestep"].max() for each in found), (
        "a batch sees half the schedule"
    )
    least = min(range(20), key=lambda i: float(torch.cat([each["timestep"] for each in found])[i]))
    noisy_CHW = torch.cat([each["sample"] for each in found])[least]
    alpha = pipeline.scheduler.alphas_cumprod[25]
    assert float(noisy_CHW.mean()) == pytest.approx(2 * float(alpha) ** 0.5, abs=0.1)
    again = asks(pipeline, clean, seed=1)
    assert all(torch.equal(a["sample"], b["sample"]) for a, b in zip(found, again, strict=True))
    assert not torch.equal(asks(pipeline, clean, seed=2)[0]["sample"], found[0]["sample"])
    with torch.no_grad():
        assert pipeline.unet(**found[0])[0].isfinite().all()


def test_latents_of_unlike_shapes_do_not_share_a_call(pipeline: DiffusionPipeline) -> None:
    wide = [Example(torch.zeros(4, 8, 16), "a", (64, 128, 0, 0, 64, 128)), *of_corpus(pipeline, 1)]
    assert sorted(tuple(each["sample"].shape) for each in asks(pipeline, wide, 0)) == [(1, 4, 8, 16), (1, 4, 16, 16)]


def test_stored_latents_serve_too(home: Path, pipeline: DiffusionPipeline) -> None:
    write_latents(home / "latents" / "tiny", rows=40)
    examples = of_latents("tiny", 5)
    assert [tuple(each.latent_CHW.shape) for each in examples] == [(4, 16, 16)] * 5
    assert examples[0].caption == "a red apple, flat vector style"
    assert examples[0].time_ids == (128, 128, 0, 0, 128, 128)
    with torch.no_grad():
        assert pipeline.unet(**asks(pipeline, examples, 0)[0])[0].isfinite().all()
    with pytest.raises(ValueError, match=r"gave 43 rows for calibration, not 90: ask for fewer"):
        of_latents("tiny", 90)
