"""From the names that a recipe holds to the networks that look at pictures.

What ships here needs no download: "nano" scores pictures against texts, "efflite0" gives features. Everything else is a
path on this machine, or somebody's function.
"""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor

from ssd1b.evaluation.clip import Clip
from ssd1b.evaluation.efficientnet import Efflite0
from ssd1b.evaluation.extractor import Extractor, Eyes, ImageText
from ssd1b.evaluation.inception import Inception
from ssd1b.evaluation.scorer import Scorer

# B pictures, H W pixels, C colours

Rate = Callable[[Tensor, list[str]], Iterable[float]]
"""Somebody's function: uint8 pictures (B, height, width, 3) and as many prompts to a number each; higher is better."""


@dataclass(frozen=True)
class Taste:
    """How much people would like a picture for a prompt, by somebody's model."""

    extractor: Extractor
    rate: Rate

    def __call__(self, pictures_BHWC: Tensor, prompts: list[str]) -> Tensor:
        """Return one number a pair, shape (B,).

        Raises:
            ValueError: the function gave another count.
        """
        found_B = torch.as_tensor(list(self.rate(pictures_BHWC, prompts)), dtype=torch.float32)
        if found_B.shape != (len(prompts),):
            raise ValueError(f"{self.extractor.source} gave {tuple(found_B.shape)} numbers for {len(prompts)} pictures")
        return found_B


def image_text(source: str, device: str = "cpu") -> ImageText:
    """Return what scores pictures against texts: "nano", or the folder of a CLIP.

    Raises:
        ValueError: the folder is no CLIP.
    """
    return Scorer.load() if source == "nano" else Clip(Path(source), device)


def eyes(source: str, device: str = "cpu") -> Eyes:
    """Return what sees pictures: "efflite0", a file of InceptionV3's weights, or the folder of a CLIP.

    Raises:
        ValueError: the path holds neither.
    """
    if source == "efflite0":
        return Efflite0()
    return Clip(Path(source), device) if Path(source).is_dir() else Inception(Path(source), device)


def taste(name: str, source: str, device: str = "cpu") -> Taste:
    """Return a preference model: `package.module:function`, or the folder of a CLIP such as PickScore's.

    HPSv2's own package scores one prompt a call; a function around it for this hook is a line over its `hpsv2.score`.
    Of a function the SHA-256 is that of its module's code: which weights it reads is its own business.

    Raises:
        ValueError: no such function or folder.
    """
    if Path(source).is_dir():
        clip = Clip(Path(source), device)
        found = clip.extractor
        extractor = Extractor(
            name=name, kind="preference", source=source, dimension=1, sha256=found.sha256, licence=found.licence
        )
        return Taste(extractor, lambda pictures, prompts: clip.preference(pictures, prompts).tolist())
    module, colon, attribute = source.partition(":")
    if not (module and colon and attribute):
        raise ValueError(f"{name} from {source!r}: write package.module:function, or the folder of a CLIP")
    try:
        function = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{name} from {source!r} cannot be loaded: {error}") from error
    code = inspect.getsource(inspect.getmodule(function) or function)
    extractor = Extractor(
        name=name, kind="preference", source=source, dimension=1, sha256=sha256(code.encode()).hexdigest(),
        licence="unknown",
    )  # fmt: skip
    return Taste(extractor, function)
