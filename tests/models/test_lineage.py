"""Lineage and the model card that is written from it."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from ssd1b.family.carve import keep_map
from ssd1b.family.table import SDXL
from ssd1b.models.lineage import CARD, FILE, Evaluation, Lineage, Trained, card, licence_of, read, write

TOLD = Lineage(
    name="half",
    base="stabilityai/stable-diffusion-xl-base-1.0",
    base_parameters=2_567_463_684,
    parameters=1_331_334_404,
    anatomy="down -+- 2+2 4+4 | mid resnet | up 4+4+10 2+1+1 -+-+-",
    chosen="declared for ssd-1b",
    removed={"mid_block": "attention of 10 transformer blocks, 1 of 2 resnets"},
    keep_map=keep_map(SDXL, "ssd-1b"),
    licence="openrail++",
    size_px=1024,
    commit="abc1234",
    versions={"torch": "2.13.0"},
)
TRAINED = Trained(
    stage="mid", teacher="teachers/one", carved=("mid",), steps=51_000, rows_per_step=32, lr=1e-5,
    weights={"task": 1.0, "output": 0.5, "snr_gamma": None},
)  # fmt: skip


def test_it_survives_its_file(tmp_path: Path) -> None:
    found = Evaluation(against="nano", how="24 prompts", numbers={"score": 0.9, "fid": None})
    whole = replace(TOLD, trained=(TRAINED,), data="the latents `sdxl`", limits=("no hands",), evaluation=found)
    write(whole, tmp_path)
    assert read(tmp_path) == whole
    assert (tmp_path / CARD).read_text() == card(whole)
    assert read(tmp_path / "elsewhere") is None
    (tmp_path / FILE).write_text('{"name": 3}')
    with pytest.raises(ValueError, match=r"lineage\.json is no lineage: .*; remove it"):
        read(tmp_path)


def test_the_card_has_metadata_a_hub_can_read() -> None:
    _, front, _ = card(TOLD).split("---\n", 2)
    assert yaml.safe_load(front) == {
        "license": "openrail++", "library_name": "diffusers", "pipeline_tag": "text-to-image",
        "base_model": "stabilityai/stable-diffusion-xl-base-1.0", "tags": ["text-to-image", "distillation"],
    }  # fmt: skip
    assert "base_model" not in card(replace(TOLD, base="/some/folder"))


def test_the_card_says_what_was_and_what_was_not_done() -> None:
    bare = card(TOLD)
    for words in (
        "51.9%", "declared for ssd-1b", "- `mid_block`: attention of 10", "abc1234", "torch 2.13.0",
        "None yet", "Not evaluated yet.", "## Limits and bias", "openrail++, as the base's card says",
    ):  # fmt: skip
        assert words in bare
    numbers = {"score": 0.912345, "score_low": 0.8, "score_high": 1.05, "fid": None}
    found = Evaluation(against="nano", how="24 prompts", numbers=numbers)
    more = {"trained": (TRAINED,), "data": "the latents `sdxl`", "limits": ("It cannot draw hands.",)}
    full = card(replace(TOLD, licence="other", evaluation=found, **more))
    for words in ("| mid | `teachers/one` | mid | 51,000 | 32 | 1e-05 | task 1, output 0.5 |", "on the latents `sdxl`",
                  "Against `nano`: 24 prompts.", "| score | 0.91234 | 0.8 to 1.05 |", "| fid | not measured |  |",
                  "- It cannot draw hands.", "the base names none"):  # fmt: skip
        assert words in full, words
    assert "None yet" not in full


def test_a_bases_licence_is_found_in_its_card(tmp_path: Path) -> None:
    assert licence_of(tmp_path) == "other"
    (tmp_path / CARD).write_text("---\nlicense: apache-2.0\n---\n# x\n")
    assert licence_of(tmp_path) == "apache-2.0"


def test_a_card_says_how_its_student_learned() -> None:
    from dataclasses import replace

    from ssd1b.recipes.ablation import variant
    from ssd1b.recipes.distill import ssd1b_nano
    from ssd1b.training.story import how

    told = ssd1b_nano()
    assert how(told) == "distilled layer by layer"
    assert how(variant(told, "output_only", 0)) == "distilled by output alone"
    assert how(variant(told, "from_scratch", 0)) == "trained without a teacher, from random weights"
    averaged = replace(told, features="blocks", normalise=True, ema_decay=0.9999, validate_rows=64)
    assert how(averaged) == (
        "distilled by the features of whole blocks, each feature relative to the teacher's, its weights averaged with "
        "decay 0.9999, the best checkpoint by 64 held-out rows"
    )
