"""jobs.lora, jobs.export and jobs.benchmark on a tiny model."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs import benchmark, export
from ssd1b import tracking
from ssd1b.adapters.formats import read
from ssd1b.engines.bundle import open_engine
from ssd1b.models.files import load_unet
from ssd1b.recipes.benchmark import engine_smoke
from ssd1b.recipes.export import Export
from ssd1b.recipes.lora import Lora
from ssd1b.training.lora import adapted_model, learning_rate, save, train


def write_latents(folder: Path, style: str = "black line", rows: int = 8) -> None:
    """Latents as jobs.encode leaves them."""
    random = np.random.default_rng(0)
    sizes = {"original_height": 128, "original_width": 128, "crop_top": 0, "crop_left": 0}
    table = [
        {
            "sample_id": i,
            "mean": random.normal(size=(4, 16, 16)).astype(np.float16).tobytes(),
            "std": np.full((4, 16, 16), 0.1, np.float16).tobytes(),
            **sizes,
            "target_height": 128,
            "target_width": 128,
            "captions": [f"a cat, {style} style", "a cat"],
            "split": "train",
            "style": style,
            "concept": str(i),
        }
        for i in range(rows)
    ]
    part = folder / "bucket=128x128" / "part-0.parquet"
    part.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(table), part)
    (folder / "_summary.json").write_text(json.dumps({"latents": folder.name}))


def lora(model: Path, **changes) -> Lora:
    small = {"steps": 4, "batch": 2, "report_every": 2, "prompts": ("a cat",), "sampling_steps": 2, "base": "tiny"}
    return Lora(model=str(model), **small | changes)


def test_lora_trains_and_registers(home, tiny_model):
    write_latents(home / "latents" / "nano_line")
    trained = train(lora(tiny_model))
    assert trained["pictures"] == 8
    assert 0.001 < trained["share"] < 0.02
    version = tracking.version_of("tiny-lora-black-line", "champion")
    assert version.uri == trained["adapter"]
    assert {"kind": "lora", "base": "tiny", "lora": "black-line"}.items() <= version.tags.items()
    folder = tracking.download(version.uri)
    assert {path.name for path in folder.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    picture = next((home / "mlartifacts").rglob("before_after.png"))
    assert Image.open(picture).size == (128, 256)


@pytest.mark.usefixtures("home")
def test_export(tiny_model, tmp_path):
    peft = adapted_model(load_unet(str(tiny_model)), lora(tiny_model))
    for parameter in peft.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.1)
    tags = {"kind": "lora", "base": "tiny", "lora": "black-line"}
    tracking.register("tiny-lora-black-line", save(peft, tmp_path / "adapter"), tags=tags)
    registered = tracking.register("tiny", tiny_model, alias="candidate")
    small = {"model": "models:/tiny@candidate", "teacher": str(tiny_model), "slots": 3, "rank": 2}
    exported = export.run(Export(name="tiny", check_steps=2, batch=1, repeats=1, **small))
    assert exported["engine"].startswith("openvino")
    assert not exported["refused"]
    for proof in exported["adapters"].values():
        assert proof["change"] > 0
        assert proof["bystander"] == 0
    assert set(exported["adapters"]) == {"random", "black-line"}
    assert exported["picture"]["levels_mean"] < 4
    candidate = tracking.version_of("tiny", "candidate")
    assert candidate.version == registered
    assert candidate.tags["bundle"] == exported["bundle"]
    bundle = tracking.download(exported["bundle"])
    engine = open_engine(bundle)
    adapter, report = read(tmp_path / "adapter", engine.layout.shapes)
    assert not report.dropped
    engine.load_adapter(2, adapter)


@pytest.mark.usefixtures("home")
def test_the_contest_of_engines(tiny_model):
    """Every section once, on models too small to tell anything."""
    config = replace(engine_smoke(), teacher=str(tiny_model), student=str(tiny_model))
    result = benchmark.run(config)
    openvino = next(name for name in result["step_ms"]["1"] if name.startswith("openvino"))
    names = {"diffusers", "torch", "onnxruntime f32", openvino}
    assert result["step_ms"].keys() == {"1", "2"}
    for by_engine in result["step_ms"].values():
        assert by_engine.keys() == names
        assert all(row["student"] > 0 for row in by_engine.values())
    for by_rank in result["bank"].values():
        assert by_rank["4"].keys() == {"none_ms", "1_adapters", "2_adapters"}
    assert result["live_ms"].keys() == names | {"rank"}
    assert all(0 < each["share"]["4"] < 1 for each in result["decode"].values())
    assert result["parameters"]["teacher"] == result["parameters"]["student"]
    assert names - {"diffusers"} <= result["same_picture_db"].keys()
    assert all(db >= 40 for name, db in result["same_picture_db"].items() if name == "torch" or name.endswith("f32"))


@pytest.mark.usefixtures("home")
def test_missing_latents_name_the_job(tiny_model):
    with pytest.raises(ValueError, match=r"run jobs\.encode"):
        train(lora(tiny_model))


def test_a_style_that_is_not_there_names_those_that_are(home, tiny_model):
    write_latents(home / "latents" / "nano_line", style="retro blob")
    with pytest.raises(ValueError, match="no row of style 'black line', only retro blob"):
        train(lora(tiny_model))


def test_targets_that_name_no_layer_are_refused(home, tiny_model):
    write_latents(home / "latents" / "nano_line")
    with pytest.raises(ValueError, match="to_z"):
        train(lora(tiny_model, targets=("to_z",)))


def test_the_learning_rate_warms_up_and_falls_to_zero():
    rates = [learning_rate(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == pytest.approx(rates[4], abs=0.01)
    assert rates[-1] < 0.001
