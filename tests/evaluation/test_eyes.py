"""Who looks at pictures: each opens what it is named by, says who it is, and gives what its own library gives."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

from ssd1b.evaluation.eyes import eyes, image_text, taste
from ssd1b.evaluation.inception import FEATURES, InceptionV3

PICTURES = torch.randint(0, 256, (3, 40, 50, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
TEXTS = ["a red apple", "a cat on a mat, flat vector style", "x"]


def brightness(pictures_BHWC: Tensor, prompts: list[str]) -> list[float]:
    """A preference model: bright pictures for long prompts."""
    return [each.float().mean().item() * len(text) for each, text in zip(pictures_BHWC, prompts, strict=True)]


def nothing(pictures_BHWC: Tensor, prompts: list[str]) -> list[float]:
    return [0.0] * (len(pictures_BHWC) + len(prompts))


def test_a_clip_scores_as_transformers_does(clip_folder: Path) -> None:
    """The logits are PickScore's number where the weights are PickScore's."""
    clip = image_text(str(clip_folder))
    model, tokenizer = CLIPModel.from_pretrained(clip_folder), AutoTokenizer.from_pretrained(clip_folder)
    tokens = tokenizer(TEXTS, padding=True, return_tensors="pt")
    pixels = CLIPImageProcessorPil.from_pretrained(clip_folder)(
        [Image.fromarray(each.numpy()) for each in PICTURES], return_tensors="pt"
    )
    with torch.no_grad():
        logits = model(**tokens, **pixels).logits_per_image
    scale = model.logit_scale.exp().item()
    assert torch.allclose(clip.pictures(PICTURES) @ clip.texts(TEXTS).T * scale, logits, atol=1e-4)
    pickscore = taste("pickscore", str(clip_folder))
    assert torch.allclose(pickscore(PICTURES, TEXTS), logits.diagonal(), atol=1e-4)
    assert (clip.extractor.name, clip.extractor.dimension) == ("clip", 16)
    assert pickscore.extractor.sha256 == clip.extractor.sha256


def test_a_text_longer_than_the_tower_is_cut_off(clip_folder: Path) -> None:
    assert image_text(str(clip_folder)).texts(["apple " * 100]).shape == (1, 16)


def test_a_folder_that_is_no_clip_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is no CLIP of transformers: it must hold model\.safetensors"):
        image_text(str(tmp_path))


def test_somebodys_function_rates_pairs() -> None:
    rate = taste("hpsv2", f"{__name__}:brightness")
    assert rate(PICTURES, TEXTS).tolist() == pytest.approx(brightness(PICTURES, TEXTS))
    assert rate.extractor.kind == "preference"
    assert re.fullmatch("[0-9a-f]{64}", rate.extractor.sha256)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("json", r"write package\.module:function"),
        ("json:absent", "cannot be loaded"),
        ("no_such_module_here:rate", "cannot be loaded"),
    ],
)
def test_a_function_that_is_not_there_is_refused(source: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        taste("hpsv2", source)


def test_a_function_that_counts_wrong_is_refused() -> None:
    with pytest.raises(ValueError, match=r"gave \(6,\) numbers for 3 pictures"):
        taste("hpsv2", f"{__name__}:nothing")(PICTURES, TEXTS)


def waves() -> InceptionV3:
    """FID's network with weights that anybody can make again: sines."""
    network = InceptionV3().eval()
    for i, (name, tensor) in enumerate(sorted(network.state_dict().items())):
        if tensor.is_floating_point():
            wave = torch.sin(torch.arange(tensor.numel(), dtype=torch.float64) * 0.7 + i).view(tensor.shape)
            if tensor.ndim > 1:
                tensor.copy_(wave * (3 / tensor[0].numel()) ** 0.5)
            else:
                tensor.copy_(1 + 0.2 * wave if name.endswith(("running_var", "bn.weight")) else 0.1 * wave)
    return network


def test_inception_is_torch_fidelitys() -> None:
    """Features that torch-fidelity 0.4.0 gave of the same weights and pixels, bit for bit those of this network.

    torch-fidelity needs torchvision, which every build of torch has its own of, so it is not asked here again.
    """
    pixels = (torch.arange(3 * 299 * 299) * 37 % 256).view(1, 3, 299, 299).float()
    with torch.inference_mode():
        features_BD = waves()((pixels - 128) / 128)
    expected = [14.818803787, 71.318710327, 0.0, 434.770629883, 0.025217459, 8359.0234375]
    assert features_BD[0, :2048:400].tolist() == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert features_BD.mean().item() == pytest.approx(595.0889, rel=1e-3)


def test_only_the_weights_of_2015_make_a_fid(tmp_path: Path) -> None:
    path = tmp_path / "inception.pth"
    torch.save(waves().state_dict(), path)
    seen = eyes(str(path))
    assert seen.features(PICTURES).shape == (3, FEATURES)
    assert seen.extractor.name == "other-inception"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="is no state of FID's InceptionV3"):
        eyes(str(path))
    with pytest.raises(ValueError, match=r"no InceptionV3 weights at .*missing.pth"):
        eyes(str(tmp_path / "missing.pth"))
