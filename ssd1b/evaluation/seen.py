"""What the extractors saw in one model's pictures, and under which conditions those were drawn.

Everything that is measured afterwards is a pure function of this: the pictures themselves are looked at once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor
from torch.nn.functional import interpolate

from ssd1b.evaluation.asks import Ask, digest
from ssd1b.evaluation.attributes import border, middle
from ssd1b.evaluation.extractor import Extractor, Eyes, Features, ImageText
from ssd1b.evaluation.eyes import Taste
from ssd1b.recipes.evaluate import Evaluate

# N pictures, B of a batch, H W pixels, C colours, E width of the common space, 3 colour channels

BATCH = 64
SMALL_PX = 128
"""Longest side at which pictures are compared pixel by pixel."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What must be alike for two models' numbers to be comparable."""

    prompts: int
    prompts_sha256: str
    """Of prompts and seeds, in order."""
    seeds: tuple[int, int]
    """Least and greatest."""
    sampler: str
    steps: int
    guidance: float
    negative: str | None
    side_px: int
    scorer: str
    """Identity of the extractor that scores pictures against prompts."""
    features: str
    """Identity of the extractor that pictures are compared by as distributions."""

    @staticmethod
    def of(config: Evaluate, asks: Sequence[Ask], scorer: Extractor, features: Extractor) -> "Conditions":
        """Return the conditions of a recipe's prompts under two extractors."""
        seeds = [ask.seed for ask in asks]
        return Conditions(
            prompts=len(asks), prompts_sha256=digest(asks), seeds=(min(seeds), max(seeds)), sampler=config.sampler,
            steps=config.steps, guidance=config.guidance, negative=config.negative, side_px=config.side,
            scorer=scorer.identity, features=features.identity,
        )  # fmt: skip


def unlike(one: Conditions, other: Conditions) -> list[str]:
    """Return in words what differs between two conditions; nothing where numbers may be compared."""
    return [
        f"{field.name} ({getattr(one, field.name)!r} and {getattr(other, field.name)!r})"
        for field in fields(Conditions)
        if getattr(one, field.name) != getattr(other, field.name)
    ]


def read_conditions(text: str) -> dict[str, Conditions]:
    """Return the conditions by model from JSON, as jobs.evaluate leaves them on a version.

    Raises:
        ValueError: the text holds something else.
    """
    try:
        return TypeAdapter(dict[str, Conditions]).validate_json(text)
    except ValidationError as error:
        raise ValueError(f"{text[:80]!r} are no conditions of an evaluation: {error.errors()[0]['msg']}") from error


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Numbers of N pictures, in the order of their prompts."""

    embedded: Features
    """Unit vectors beside the texts', by the scorer."""
    compared: Features
    """What pictures of a prompt are compared with one another by, by the scorer."""
    spread: Features
    """What pictures are compared by as distributions."""
    tastes: Mapping[str, Tensor]
    """Preference models by name, shape (N,)."""
    small_NHWC: Tensor
    """The pictures at 128 px or less, uint8."""
    border_N3: Tensor
    middle_N3: Tensor


@dataclass(frozen=True)
class Lookers:
    """Everything that looks at pictures in one evaluation."""

    scorer: ImageText
    eyes: Eyes
    tastes: Mapping[str, Taste]

    def look(self, batches: Iterable[Tensor], prompts: Sequence[str]) -> Seen:
        """Return what all of them see; batches of uint8 pictures (B, H, W, C) in the prompts' order."""
        columns: dict[str, list[Tensor]] = {}
        start = 0
        for pictures_BHWC in batches:
            for each_BHWC in torch.split(pictures_BHWC, BATCH):
                asked = list(prompts[start : start + len(each_BHWC)])
                start += len(each_BHWC)
                for name, values in self.at(each_BHWC, asked).items():
                    columns.setdefault(name, []).append(values)
        whole = {name: torch.cat(parts) for name, parts in columns.items()}
        scorer, eyes = self.scorer.extractor, self.eyes.extractor
        return Seen(
            embedded=Features(extractor=scorer, values_ND=whole["embedded"]),
            compared=Features(extractor=scorer, values_ND=whole["compared"]),
            spread=Features(extractor=eyes, values_ND=whole["spread"]),
            tastes={name: whole[f"taste {name}"] for name in self.tastes},
            small_NHWC=whole["small"],
            border_N3=whole["border"],
            middle_N3=whole["middle"],
        )

    def at(self, pictures_BHWC: Tensor, prompts: list[str]) -> dict[str, Tensor]:
        embedded_BE, compared_BD = self.scorer.see(pictures_BHWC)
        return {
            "embedded": embedded_BE,
            "compared": compared_BD,
            "spread": self.eyes.features(pictures_BHWC),
            "small": small(pictures_BHWC),
            "border": border(pictures_BHWC),
            "middle": middle(pictures_BHWC),
            **{f"taste {name}": taste(pictures_BHWC, prompts) for name, taste in self.tastes.items()},
        }


def small(pictures_BHWC: Tensor) -> Tensor:
    """Return uint8 pictures at no more than 128 px a side."""
    factor = SMALL_PX / max(pictures_BHWC.shape[1:3])
    if factor >= 1:
        return pictures_BHWC
    scaled = interpolate(pictures_BHWC.permute(0, 3, 1, 2).float(), scale_factor=factor, mode="area")
    return scaled.round().to(torch.uint8).permute(0, 2, 3, 1)
