"""Models in, by the name of a source: nothing is lost, nothing is made up, and what is not used is told."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from nano_pipelines import pipeline_of, same, save_students, unet_of, weights_of
from safetensors.torch import load_file, save_file

from ssd1b.models import saving
from ssd1b.models.files import (
    NANO,
    load_pipeline,
    load_unet,
    load_vae,
    resolve,
    save_folder,
    save_single_file,
    shapes_of,
    unet_config,
)
from ssd1b.models.local import folder_of


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_students(tmp_path_factory.mktemp("students"))


def shard_unet(folder: Path, style: str) -> None:
    whole = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(whole)
    names = sorted(tensors)
    held = {}
    for i, part in enumerate((names[::2], names[1::2]), start=1):
        shard = style.format(f"0000{i}-of-00002")
        save_file({name: tensors[name] for name in part}, folder / "unet" / shard)
        held |= dict.fromkeys(part, shard)
    variant = ".fp16" if "fp16" in style else ""
    index = folder / "unet" / f"diffusion_pytorch_model.safetensors.index{variant}.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": held}))
    whole.unlink()


@pytest.mark.parametrize(
    "style", ["diffusion_pytorch_model-{}.safetensors", "diffusion_pytorch_model.fp16-{}.safetensors"]
)
def test_shards_and_variants_load_as_the_whole(style: str, saved: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(saved["nano-sd-tiny"], folder := tmp_path / "sharded")
    shard_unet(folder, style)
    assert same(load_unet(str(folder)).state_dict(), load_unet(str(saved["nano-sd-tiny"])).state_dict())


def test_a_folder_of_one_variant_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = pipeline_of("nano-sd-tiny")
    folder = save_folder(made, tmp_path / "variant", torch.float16, variant="fp16")
    assert (folder / "text_encoder" / "model.fp16.safetensors").is_file()
    half = load_pipeline(str(folder), torch.float16)
    assert capsys.readouterr().out == ""
    assert same(weights_of(half), {name: weight.half() for name, weight in weights_of(made).items()})
    assert load_unet(str(folder)).dtype == torch.float32
    assert "only" not in capsys.readouterr().err


def test_loaded_weights_are_the_models_own(saved: dict[str, Path]) -> None:
    file = saved["nano-sd-tiny"] / "unet" / "diffusion_pytorch_model.safetensors"
    before = file.read_bytes()
    unet = load_unet(str(saved["nano-sd-tiny"]), torch.float16)
    with torch.no_grad():
        unet.conv_in.weight.zero_()
    assert file.read_bytes() == before
    assert all(weight.data_ptr() % 64 == 0 and weight.requires_grad for weight in unet.parameters())


def test_older_folders_are_read(saved: dict[str, Path], tmp_path: Path) -> None:
    """Old names of the VAE's attention, position ids, and a tower without `text_model.`, as transformers 5 writes."""
    shutil.copytree(saved["nano-sd-tiny"], folder := tmp_path / "old")
    vae, tower = folder / "vae/diffusion_pytorch_model.safetensors", folder / "text_encoder/model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = load_file(vae)
    for new, name in old.items():
        renamed = {key.replace(f"attentions.0.{new}.", f"attentions.0.{name}."): w for key, w in renamed.items()}
    assert renamed.keys() != load_file(vae).keys()
    save_file(renamed, vae)
    bare = {name.removeprefix("text_model."): weight for name, weight in load_file(tower).items()}
    save_file(bare | {"embeddings.position_ids": torch.arange(32)[None]}, tower)
    assert same(weights_of(load_pipeline(str(folder))), weights_of(load_pipeline(str(saved["nano-sd-tiny"]))))


def test_a_wrong_config_json_is_overruled_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unet = unet_of("nano-sd-tiny")
    unet.save_pretrained(tmp_path / "unet")
    unet_of("nano-sd-1.5").save_config(tmp_path / "unet")
    assert same(load_unet(str(tmp_path)).state_dict(), unet.state_dict())
    assert "the weights are right where config.json is not: block_out_channels" in capsys.readouterr().out


@pytest.mark.parametrize("layout", ["diffusers", "sgm", "folder"])
def test_a_unet_alone_takes_the_rest_from_a_donor(
    layout: str, saved: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = load_pipeline(str(saved["nano-ssd-1b"]))
    if layout == "folder":
        source, donor = saved["nano-ssd-1b"] / "unet", str(NANO)
    else:
        tensors = dict(whole.unet.state_dict()) if layout == "diffusers" else saving.sgm_weights(whole)
        only = {name: weight for name, weight in tensors.items() if layout == "diffusers" or name.startswith("model.")}
        save_file(only, source := tmp_path / "unet.safetensors")
        donor = None
    assert same(load_unet(str(source)).state_dict(), whole.unet.state_dict())
    assert same(weights_of(load_pipeline(str(source), donor=donor)), weights_of(whole))
    assert "has no vae: it is taken from" in capsys.readouterr().out
    if layout == "folder":
        with pytest.raises(ValueError, match=r"has no vae, text_encoder, tokenizer, scheduler.*give donor=SOURCE"):
            load_pipeline(str(source))


@pytest.mark.parametrize("layout", ["diffusers", "ldm"])
def test_a_vae_alone(layout: str, tmp_path: Path) -> None:
    vae = load_vae("nano")
    pairs = saving.pairs("vae", vae, list(vae.state_dict()))
    ldm = {pair.theirs: saving.to_theirs(pair, vae.state_dict()) for pair in pairs}
    save_file(dict(vae.state_dict()) if layout == "diffusers" else ldm, path := tmp_path / "vae.safetensors")
    assert same(load_vae(str(path)).state_dict(), vae.state_dict())
    assert load_vae(str(path)).config.scaling_factor == vae.config.scaling_factor
    with pytest.raises(ValueError, match="has no unet, only vae: give"):
        load_unet(str(path))


def test_what_the_wild_adds_is_ignored_by_name_and_what_nobody_knows_is_told(
    saved: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = load_pipeline(str(saved["nano-ssd-1b"]))
    path = save_single_file(pipeline, tmp_path / "one.safetensors")
    wild = {
        "conditioner.embedders.0.transformer.text_model.embeddings.position_ids": torch.arange(32)[None],
        "conditioner.embedders.1.model.logit_scale": torch.tensor(4.6),
        "model_ema.diffusion_modelconv_inweight": torch.ones(2),
        **{name: torch.ones(3) for name in ("alphas_cumprod", "betas", "sqrt_alphas_cumprod", "posterior_variance")},
        **{name: torch.ones(3) for name in ("log_one_minus_alphas_cumprod", "denoiser.sigmas")},
    }
    save_file(load_file(path) | wild, path)
    assert same(weights_of(load_pipeline(str(path))), weights_of(pipeline))
    assert capsys.readouterr().out == ""
    save_file(load_file(path) | {"mystery.weight": torch.ones(1)}, path)
    load_unet(str(path))
    assert f"{path}: 1 tensors belong to no part and are not used: mystery.weight" in capsys.readouterr().out
    save_file(load_file(path) | {"first_stage_model.mystery.weight": torch.ones(1)}, path)
    with pytest.raises(ValueError, match=r"1 unexpected \(mystery.weight\)"):
        load_vae(str(path))


def test_a_donor_of_another_kind_is_refused(saved: dict[str, Path], tmp_path: Path) -> None:
    path = save_single_file(load_pipeline(str(saved["nano-ssd-1b"])), tmp_path / "one.safetensors")
    shutil.copytree(NANO, other := tmp_path / "other", ignore=shutil.ignore_patterns("experts", "*.safetensors"))
    assert load_pipeline(str(path), donor=str(other)).vae.config.scaling_factor == 1.0
    config = json.loads((other / "text_encoder" / "config.json").read_text())
    (other / "text_encoder" / "config.json").write_text(
        json.dumps(config | {"hidden_size": 32, "num_hidden_layers": 4})
    )
    with pytest.raises(ValueError, match=r"does not fit: 16 missing .* misshaped"):
        load_pipeline(str(path), donor=str(other))


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("nanoo", "no model at nanoo .did you mean 'nano'"),
        ("/no/such/folder", "no model at /no/such/folder"),
        ("runs/pretrain/none", "no model at runs/pretrain/none"),
        ("here/model.safetensors", "no model at here/model.safetensors"),
        ("nano+cubist", r"no expert 'cubist' in the nano family: choose from \['poster', 'retro'\]"),
        ("models:/ssd-1b@champion", "ssd1b.tracking.download"),
    ],
)
def test_a_source_that_is_none_is_refused(source: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        resolve(source)


def test_quantised_weights_and_other_vaes_are_refused(saved: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(saved["nano-sd-tiny"], folder := tmp_path / "strange")
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: weight.to(torch.int8) for name, weight in load_file(file).items()}, file)
    with pytest.raises(ValueError, match="so they are quantised"):
        load_unet(str(folder))
    config = folder / "vae" / "config.json"
    config.write_text(config.read_text().replace("AutoencoderKL", "AutoencoderTiny"))
    with pytest.raises(ValueError, match="the weights of a AutoencoderTiny"):
        load_vae(str(folder))
    config.write_text("<html>")
    with pytest.raises(ValueError, match="is not readable JSON"):
        load_vae(str(folder))
    shutil.rmtree(folder / "vae")
    with pytest.raises(ValueError, match="has no vae"):
        load_vae(str(folder))


def test_shapes_are_told_without_loading(saved: dict[str, Path]) -> None:
    folder = saved["nano-sd-tiny"]
    expected = {name: tuple(weight.shape) for name, weight in unet_of("nano-sd-tiny").state_dict().items()}
    assert shapes_of(folder) == shapes_of(folder / "unet") == expected
    assert shapes_of(folder / "unet" / "diffusion_pytorch_model.safetensors") == expected
    assert unet_config(folder)["block_out_channels"] == [32, 64, 64]


def test_a_single_file_becomes_a_folder_once_for_those_who_need_one(home: Path) -> None:
    path = save_single_file(load_pipeline("nano"), home / "one.safetensors", torch.float16)
    folder = folder_of(str(path))
    assert folder.parent == home / "converted"
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    assert folder_of(str(path)) == folder
    assert before == {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    assert same(weights_of(load_pipeline(str(folder))), weights_of(load_pipeline(str(path))))
    save_single_file(load_pipeline("nano+retro"), path, torch.float16)
    assert folder_of(str(path)) != folder, "another file under the same name"
    assert folder_of(str(folder)) == folder
    assert folder_of("nano+retro") == NANO
