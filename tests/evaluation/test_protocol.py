"""The way of a published protocol, whole, at nano size: captions from a file, one seed, a CLIP, Inception, moments."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from ssd1b.evaluation.compare import compare
from ssd1b.evaluation.inception import FEATURES, InceptionV3
from ssd1b.recipes.evaluate import RECIPES, Window

CAPTIONS = ("A red apple on a table.", "A cat and a dog.", "A city at night with people walking around.")


def test_the_protocol_runs_and_says_whether_its_windows_hold(tmp_path: Path, clip_folder: Path) -> None:
    captions, moments, inception = tmp_path / "captions.tsv", tmp_path / "real.npz", tmp_path / "inception.pth"
    captions.write_text("id\tcaption\n" + "".join(f"{i}\t{text}\n" for i, text in enumerate(CAPTIONS)))
    np.savez(moments, mu=np.zeros(FEATURES), sigma=np.eye(FEATURES))
    torch.manual_seed(0)
    torch.save(InceptionV3().state_dict(), inception)
    config = dataclasses.replace(
        RECIPES["mlperf_sdxl"](), teacher="nano", captions=str(captions), captions_used=3, scorer=str(clip_folder),
        features=str(inception), moments=str(moments), moments_pictures=9999, device="cpu", side=128, steps=2, batch=3,
        preferences={"pickscore": str(clip_folder)}, timing_rounds=1, timing_batch=1,
        windows=(
            Window(name="clip_score_teacher", low=-100, high=100),
            Window(name="fd_other_inception_teacher", low=-2, high=-1),
            Window(name="fid_teacher", low=23.01085758, high=23.95007626),
        ),
    )  # fmt: skip
    result = compare(config, "nano").result
    assert result.conditions["student"].seeds == (0, 0)
    assert [group.name for group in result.groups] == ["held-out caption"]
    assert [bounded.inside for bounded in result.windows] == [True, False, False]
    assert result.windows[2].value is None, "weights that are not FID's must not make a FID"
    assert result.numbers["heldout_prompts"] == 3
    assert result.numbers["pickscore_gained"] == pytest.approx(0, abs=1e-4)
    assert result.numbers["pickscore_teacher"] == pytest.approx(result.numbers["pickscore_student"], abs=1e-4)
    assert result.extractors["pickscore"].kind == "preference"
    assert "scored by clip (" in result.how
    told = result.document()
    assert told["windows"][1]["inside"] is False
    assert told["prompts"][2]["prompt"] == CAPTIONS[2]
