"""Models out: nothing is lost on the way to a folder or a file and back, others read both, a kill leaves no half."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nano_pipelines import STUDENTS, picture, pipeline_of, same, save_students, weights_of
from safetensors.torch import load_file

from ssd1b.family.table import FAMILY
from ssd1b.models import aside, saving
from ssd1b.models.files import load_pipeline, save_folder, save_single_file
from ssd1b.models.weights import Weights

MEMBERS = [name for name in FAMILY if name.startswith("nano-")]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_students(tmp_path_factory.mktemp("students"))


@pytest.mark.parametrize("member", MEMBERS)
def test_every_member_survives_folder_and_single_file(member: str, tmp_path: Path) -> None:
    made = pipeline_of(member)
    folder = load_pipeline(str(save_folder(made, tmp_path / "folder")))
    file = load_pipeline(str(save_single_file(folder, tmp_path / "one.safetensors")), donor=str(tmp_path / "folder"))
    assert type(folder) is type(file) is type(made)
    assert same(weights_of(folder), weights_of(made))
    assert same(weights_of(file), weights_of(made))
    for part in ("unet", "vae", "scheduler"):
        configs = [
            json.loads(json.dumps({k: v for k, v in getattr(each, part).config.items() if not k.startswith("_")}))
            for each in (made, folder, file)
        ]
        assert configs[0] == configs[1] == configs[2]
    assert file.text_encoder.config.to_dict() == folder.text_encoder.config.to_dict()


@pytest.mark.parametrize("student", STUDENTS)
def test_pictures_are_equal_bit_for_bit(student: str, saved: dict[str, Path], tmp_path: Path) -> None:
    folder = load_pipeline(str(saved[student]))
    path = save_single_file(folder, tmp_path / "one.safetensors", torch.float16)
    assert np.array_equal(picture(folder), picture(load_pipeline(str(path), donor=str(saved[student]))))


PLAIN = """
import sys
sys.modules["ssd1b"] = None
import numpy, torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
drawn = []
for kind, folder in zip((StableDiffusionXLPipeline, StableDiffusionPipeline) * 2, sys.argv[2:], strict=True):
    pipeline = kind.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True)
    size = dict(height=64, width=64, num_inference_steps=2, output_type="np")
    drawn.append(pipeline("a red apple", generator=torch.Generator().manual_seed(11), **size).images[0])
numpy.save(sys.argv[1], drawn)
"""


def test_plain_diffusers_draws_the_same_pictures(saved: dict[str, Path], tmp_path: Path) -> None:
    """In a process in which this project cannot be imported, from halves and from float32."""
    made = [pipeline_of(student) for student in STUDENTS]
    whole = [save_folder(each, tmp_path / f"whole-{i}") for i, each in enumerate(made)]
    folders = [*(saved[student] for student in STUDENTS), *whole]
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, str(tmp_path / "drawn.npy"), *map(str, folders)],
        capture_output=True, text=True, timeout=120, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    ours = [*(load_pipeline(str(saved[student])) for student in STUDENTS), *made]
    for drawn, pipeline in zip(np.load(tmp_path / "drawn.npy"), ours, strict=True):
        assert np.array_equal(drawn, picture(pipeline))


def test_plain_diffusers_reads_the_single_file(saved: dict[str, Path], tmp_path: Path) -> None:
    """All but the second tower, which it takes for the first where both are as wide, as here."""
    pipeline = load_pipeline(str(saved["nano-ssd-1b"]))
    path = save_single_file(pipeline, tmp_path / "one.safetensors")
    plain = type(pipeline).from_single_file(
        str(path), config=str(saved["nano-ssd-1b"]), local_files_only=True, text_encoder_2=pipeline.text_encoder_2
    )
    assert same(weights_of(plain), weights_of(pipeline))


def test_the_single_file_says_what_it_is(tmp_path: Path) -> None:
    path = save_single_file(pipeline_of("nano-ssd-1b"), tmp_path / "mine.safetensors", torch.float16)
    weights = Weights.open(path)
    assert set(weights.dtypes.values()) == {torch.float16}
    assert weights.metadata == {
        "format": "pt", "modelspec.sai_model_spec": "1.0.0", "modelspec.architecture": "nano-ssd-1b",
        "modelspec.implementation": "sgm", "modelspec.title": "mine", "modelspec.resolution": "128x128",
        "modelspec.prediction_type": "epsilon",
    }  # fmt: skip
    assert path.stat().st_mode & 0o777 == 0o644


def test_what_a_file_says_of_its_schedule_is_kept(tmp_path: Path) -> None:
    made = pipeline_of("nano-sd-small")
    made.scheduler = type(made.scheduler).from_config(
        made.scheduler.config, prediction_type="v_prediction", rescale_betas_zero_snr=True
    )
    path = save_single_file(made, tmp_path / "v.safetensors")
    assert {"v_pred", "ztsnr"} <= load_file(path).keys()
    read = load_pipeline(str(path)).scheduler.config
    assert (read.prediction_type, read.rescale_betas_zero_snr) == ("v_prediction", True)


def kill_at_rename(save: Any) -> None:
    """Run a save in a process of its own that is killed when it would make its work visible."""
    child = os.fork()
    if not child:
        aside.sync = lambda path: path.name.startswith(".") and os.kill(os.getpid(), signal.SIGKILL)
        save()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_a_killed_save_leaves_nothing_that_looks_whole_and_the_next_one_clears_it(tmp_path: Path) -> None:
    made = pipeline_of("nano-sd-tiny")
    folder, file = tmp_path / "model", tmp_path / "one.safetensors"
    kill_at_rename(lambda: save_folder(made, folder))
    kill_at_rename(lambda: save_single_file(made, file))
    assert sorted(path.name[:6] for path in tmp_path.iterdir()) == [".model", ".one.s"]
    save_folder(made, folder)
    save_single_file(made, file)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "one.safetensors"]
    with pytest.raises(ValueError, match="is already there"):
        save_folder(made, folder)
    save_single_file(made, file)


def test_a_save_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "write_aligned", full)
    made = pipeline_of("nano-sd-tiny")
    for save, name in ((save_folder, "model"), (save_single_file, "one.safetensors")):
        with pytest.raises(OSError, match="No space left"):
            save(made, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_pipeline_that_is_not_whole_or_not_its_own_is_not_written(tmp_path: Path) -> None:
    made = pipeline_of("nano-sd-tiny")
    with pytest.raises(ValueError, match=r"ends in \.safetensors"):
        save_single_file(made, tmp_path / "one.ckpt")
    made.vae = None
    with pytest.raises(ValueError, match="has no vae"):
        save_single_file(made, tmp_path / "one.safetensors")
    from peft import LoraConfig

    made.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))
    with pytest.raises(ValueError, match="the unet carries adapters"):
        save_folder(made, tmp_path / "model")
    assert not list(tmp_path.iterdir())
