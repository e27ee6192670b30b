"""How the nano family is trained from nothing: VAE, text towers, the base UNet and its experts."""

from collections.abc import Callable
from dataclasses import dataclass

from ssd1b.corpus.backdrops import BACKDROPS


@dataclass(frozen=True, kw_only=True)
class Optim:
    """AdamW with linear warm-up and cosine decay to a tenth."""

    steps: int
    """Optimizer steps in all."""
    lr: float
    """Peak learning rate."""
    warmup_steps: int = 100
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    ema_decay: float = 0.995
    """Decay of the exponential moving average that is kept as the result."""


@dataclass(frozen=True, kw_only=True)
class VaeTraining:
    """How the VAE is trained."""

    optim: Optim
    widths: tuple[int, ...] = (16, 32, 64, 64)
    """Channels per level; the first level runs at full resolution."""
    batch: int = 24
    backdrops: tuple[str, ...] = ()
    """Besides white, every drawing is seen before one of these."""
    crop: int = 64
    """Side of the random crops, pixels."""
    kl_weight: float = 1e-5
    edge_weight: float = 1.0
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class TextTraining:
    """How the text towers are trained."""

    optim: Optim
    vocabulary: int = 2048
    tokens: int = 32
    """Prompt length of the towers, tokens, the two markers included (SDXL: 77)."""
    width: int = 64
    layers: tuple[int, int] = (3, 4)
    backdrops: tuple[str, ...] = ()
    """Besides white, every drawing is seen before one of these."""
    embedding: int = 128
    """Width of the second tower's projection, which is SDXL's pooled text embedding."""
    batch: int = 192
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class UNetTraining:
    """How a UNet is trained."""

    optim: Optim
    styles: tuple[str, ...]
    """Styles it is trained on; those of the base again for an expert, so that it does not forget them."""
    subgroups: tuple[str, ...] = ()
    """Concepts it is trained on, by the corpus's subgroups; all where empty."""
    fresh_styles: tuple[str, ...] = ()
    """Styles that half of every batch is drawn from: what an expert adds."""
    backdrops: tuple[str, ...] = ()
    """Backdrops (ssd1b.corpus.backdrops) that every drawing is laid before, besides white."""
    held_out: tuple[tuple[str, str], ...] = ()
    """Pairs of (style, backdrop) that are never shown together."""
    paper_weight: float = 1.0
    """How often a drawing on white is shown for once that it is shown before each backdrop."""
    batch: int = 64
    drop_caption: float = 0.1
    snr_gamma: float = 5.0
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Pretrain:
    """One run of jobs.pretrain: parts in order, each resumed by name where a checkpoint is found."""

    name: str
    """Checkpoints lie in <storage root>/pretrain/<name>/<part>."""
    out: str
    """Folder that gets the family in diffusers layout; relative to the checkpoints' folder, or absolute."""
    vae: VaeTraining
    text: TextTraining
    base: UNetTraining
    experts: dict[str, UNetTraining]
    """Further training of the base by name; each ships as a low-rank delta."""
    start: str = ""
    """A source (ssd1b.models.files) whose weights and vocabulary the parts start from; "" is random weights."""
    expert_rank: int = 8
    architecture: str = "nano-sdxl"
    threads: int = 0
    """CPU threads; 0 takes what the machine has."""


BASE_STYLES = ("3d render", "flat vector", "soft cartoon")
CONCEPTS = ("animal-mammal", "food-fruit", "food-vegetable", "food-sweet")
"""Subgroups of the corpus that the shipped weights know; as many as two CPU cores can learn in an hour."""


SCENES = tuple(BACKDROPS)
HELD_OUT = (
    ("3d render", "sunset"), ("flat vector", "pink"), ("soft cartoon", "meadow"),
    ("retro blob", "night"), ("muted poster", "beach"),
)  # fmt: skip
"""Pairs of (style, backdrop) that no model is shown, though it knows both: what a combination is measured on."""


def nano() -> Pretrain:
    """The shipped weights: about five hours on 2 CPU cores, minutes on a GPU."""

    def unet(steps: int, lr: float, *fresh: str, backdrops: tuple[str, ...] = SCENES) -> UNetTraining:
        return UNetTraining(
            optim=Optim(steps=steps, lr=lr, warmup_steps=min(100, steps // 10), ema_decay=0.998),
            styles=(*BASE_STYLES, *fresh),
            fresh_styles=fresh,
            subgroups=CONCEPTS,
            backdrops=backdrops,
            held_out=HELD_OUT,
            paper_weight=4.0,
        )

    text = Optim(steps=600, lr=1e-3, warmup_steps=50, weight_decay=0.05, ema_decay=0.98)
    return Pretrain(
        name="nano",
        out="nano",
        vae=VaeTraining(optim=Optim(steps=2700, lr=2e-3, ema_decay=0.99), backdrops=SCENES),
        text=TextTraining(optim=text, backdrops=SCENES),
        base=unet(4000, 1.5e-3),
        experts={  # the base knows the backdrops: two of them are enough not to forget the others
            "retro": unet(120, 5e-4, "retro blob", backdrops=("blue", "meadow")),
            "poster": unet(120, 5e-4, "muted poster", backdrops=("blue", "meadow")),
        },
    )


def debug() -> Pretrain:
    """Every part for a few steps: proves the path, makes no pictures worth seeing."""
    few = Optim(steps=3, lr=1e-3, warmup_steps=1)
    fruit = ("food-fruit",)
    return Pretrain(
        name="debug",
        out="nano",
        vae=VaeTraining(optim=few, batch=2),
        text=TextTraining(optim=few, batch=8),
        base=UNetTraining(optim=few, styles=("flat vector",), subgroups=fruit, batch=4),
        experts={
            "retro": UNetTraining(
                optim=few, styles=("flat vector", "retro blob"), fresh_styles=("retro blob",), subgroups=fruit, batch=4
            )
        },
    )


RECIPES: dict[str, Callable[[], Pretrain]] = {"nano": nano, "debug": debug}
