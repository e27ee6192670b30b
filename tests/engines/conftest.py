"""A pipeline with the nano text towers and VAE and a UNet of one transformer block a layer, and its bundles."""

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from ssd1b.engines.bundle import PARTS, Bundle, build
from ssd1b.family.table import FAMILY
from ssd1b.models.files import NANO


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    for part in PARTS:
        if part != "unet":
            shutil.copytree(NANO / part, folder / part)
    shutil.copy(NANO / "model_index.json", folder)
    torch.manual_seed(0)
    config = FAMILY["nano-sdxl"] | {"transformer_layers_per_block": (1, 1, 1), "layers_per_block": 1}
    UNet2DConditionModel(**config).save_pretrained(folder / "unet")
    return folder


@pytest.fixture(scope="session")
def tiny_bundle(tiny_model) -> Bundle:
    return build(tiny_model, tiny_model.parent / "bundle", name="tiny", base="tiny", slots=4, rank=4)


@pytest.fixture(scope="session")
def conv_bundle(tiny_model) -> Bundle:
    """With a bank for convolutions."""
    return build(tiny_model, tiny_model.parent / "conv", name="conv", base="tiny", slots=4, rank=4, convolutions=True)


@pytest.fixture(scope="session")
def half_bundle(tiny_model) -> Bundle:
    """In float16."""
    return build(tiny_model, tiny_model.parent / "half", name="half", base="tiny", slots=4, rank=4, precision="f16")
