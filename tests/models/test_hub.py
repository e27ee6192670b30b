"""A hub: only what is needed is fetched, never a pickle; and without a hub a person is told what to do."""

import json
import os
import struct
from math import prod
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import constants

from ssd1b.models import hub
from ssd1b.models.files import NANO, load_pipeline, load_unet
from ssd1b.models.hub import wanted
from ssd1b.models.misfit import member_shapes
from ssd1b.models.places import SingleFile
from ssd1b.models.sources import giver, usual_donor

LISTING = [
    "README.md", "model_index.json", "SSD-1B.safetensors", "SSD-1B.ckpt", "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.bin", "unet/model.onnx", "vae/config.json", "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/config.json", "text_encoder/model.fp16.safetensors", "text_encoder/pytorch_model.bin",
    "tokenizer/vocab.json", "tokenizer/merges.txt", "scheduler/scheduler_config.json", "a/b/c.json",
]  # fmt: skip
PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")


@pytest.mark.parametrize("parts", [(), ("unet",), ("vae",), PARTS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_one_precision_of_the_named_parts_is_wanted(parts: tuple[str, ...], dtype: torch.dtype) -> None:
    chosen = wanted(LISTING, parts, dtype, "owner/name")
    half = ".fp16" if dtype == torch.float16 else ""
    weights = {
        "unet": f"unet/diffusion_pytorch_model{half}.safetensors",
        "vae": "vae/diffusion_pytorch_model.safetensors",
        "text_encoder": "text_encoder/model.fp16.safetensors",
    }
    assert {name for name in chosen if name.endswith(".safetensors")} == {weights[p] for p in parts if p in weights}
    assert {"model_index.json", "tokenizer/vocab.json", "tokenizer/merges.txt", "unet/config.json"} <= set(chosen)
    assert not [name for name in chosen if name.endswith((".bin", ".ckpt", ".onnx")) or name == "a/b/c.json"]


def test_shards_come_with_their_index() -> None:
    shards = [f"unet/diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index = "unet/diffusion_pytorch_model.safetensors.index.json"
    assert {index, *shards} <= set(wanted(["model_index.json", index, *shards], ("unet",), torch.float32, "owner/name"))


def test_a_repository_without_safe_weights_or_layout_is_refused() -> None:
    with pytest.raises(ValueError, match=r"owner/name/unet has only diffusion_pytorch_model.bin: pickles can run"):
        wanted(["model_index.json", "unet/diffusion_pytorch_model.bin"], ("unet",), torch.float32, "owner/name")
    with pytest.raises(ValueError, match=r"its .safetensors files: SSD-1B.safetensors. Download one"):
        wanted(["SSD-1B.safetensors", "README.md"], ("unet",), torch.float32, "owner/name")


def test_a_hub_id_is_fetched_and_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def snapshot(repository: str, *, allow_patterns: list[str]) -> str:
        assert repository == "owner/name"
        asked.append(allow_patterns)
        return str(NANO)

    class Api:
        def model_info(self, repository: str) -> SimpleNamespace:  # noqa: ARG002
            names = [str(path.relative_to(NANO)) for path in NANO.rglob("*") if path.is_file()]
            return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in names])

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "HfApi", Api)
    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    unet = load_unet("owner/name")
    load_pipeline("owner/name", unet=unet)
    safe = [{Path(name).parts[0] for name in names if name.endswith(".safetensors")} for names in asked]
    assert safe == [{"unet"}, {"vae", "text_encoder", "text_encoder_2"}]


@pytest.mark.parametrize("offline", [True, False])
def test_without_a_hub_the_way_out_is_told(offline: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    why = "HF_HUB_OFFLINE forbids" if offline else "it does not answer"
    with pytest.raises(ValueError, match=rf"no hub can be reached: {why}.*'hf download owner/name'\), or give a path"):
        load_unet("owner/name")


@pytest.mark.parametrize(
    ("member", "donor"), [("ssd-1b", "stabilityai/stable-diffusion-xl-base-1.0"), ("sd-tiny", "stable-diffusion-v1-5/")]
)
def test_a_full_size_file_without_a_reachable_donor_says_how_to_give_one(
    member: str, donor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file's header is true and its weights are a hole in the file, so that it takes no room."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    entries, end = {}, 0
    for name, shape in member_shapes(member).items():
        entries[name] = {"dtype": "F16", "shape": shape, "data_offsets": [end, end + 2 * prod(shape)]}
        end += 2 * prod(shape)
    header = json.dumps(entries).encode()
    path = tmp_path / "full.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    os.truncate(path, 8 + len(header) + end)
    file = SingleFile(path)
    assert (usual_donor(file) or "").startswith(donor)
    with pytest.raises(ValueError, match=rf"has no tokenizer and its donor {donor}.* cannot give .* give donor=SOURCE"):
        giver(file, None, path.name, ["tokenizer"], torch.float32)
