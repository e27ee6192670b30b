"""Recipes of jobs.distill: the schedule, the data and the machines of a distillation."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights of the three parts of the loss (Segmind's distill_sdxl.py: 1, 0.5, 0.5)."""

    task: float = 1.0
    """Of the error against the noise."""
    output: float = 0.5
    """Of the error against the teacher's noise estimate."""
    feature: float = 0.5
    """Of the sum of the errors against the teacher's features."""
    snr_gamma: float | None = None
    """Min-SNR weighting (arXiv 2303.09556) of the two noise errors; features keep their weight. None: none."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of progressive distillation."""

    name: str
    teacher: str
    """A model source: "nano", "nano+retro", a folder or a hub id."""
    carve: tuple[str, ...]
    """Parts that go on entering the stage: "mid", "down", "up"."""
    steps: int
    lr: float
    """Peak learning rate of AdamW."""
    warmup_steps: int = 10
    final_lr_share: float = 1.0
    """The learning rate falls along a cosine to this share of the peak at the end of the stage; 1: it stays."""
    weights: Weights = field(default_factory=Weights)


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Latents that are mixed in with others."""

    latents: str
    """Name of the latents: <home>/latents/<name>."""
    weight: int = 1
    """Its share of the slices is its weight over the sum of all weights, exactly, at any point of the run."""


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """One run of jobs.distill. Starting it again under the same name goes on from its newest checkpoint."""

    run: str
    """Name of the run: everything it keeps lies under <home>/distill/<run>."""
    base: str
    """Source of the first student, the text towers, the VAE and the scheduler; all teachers are asked in its terms."""
    latents: str
    """Name of the latents: <home>/latents/<name>."""
    weight: int = 1
    """Of these latents among those mixed in."""
    mixed_in: tuple[Corpus, ...] = ()
    """Further latents; each is gone through in passes of its own."""
    stages: tuple[Stage, ...]
    """Each part is carved in one of them at most; a part that none carves stays whole."""
    registered_name: str
    """Name under which the student is registered, alias "candidate"."""
    global_batch: int = 32
    """Rows of an optimizer step, whatever the number of workers."""
    student: str = "ssd-1b"
    """What the base is carved to: a member of the family, a shipped keep map, or a file that all nodes reach."""
    slices: int | None = 4
    """Slices a global batch is dealt in; a world size that divides it wastes nothing. None: chosen when the run begins,
    so that slices have at least `rows_per_slice` rows, all workers get some, and least is wasted."""
    rows_per_slice: int = 8
    """Rows that a slice should have for the feed to keep up, where `slices` is None."""
    num_workers: tuple[int, int] = (1, 2)
    """Fewest and most workers; the run goes on with what there is."""
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0
    threads_per_worker: int = 1
    """Torch threads of a worker."""
    read_cpus: float = 0.25
    """Logical CPUs of a task that reads slices; the workers must leave room for it."""
    resize_interval_s: float = 60.0
    """How often Ray Train looks whether more workers would fit."""
    seed: int = 0
    drop_share: float = 0.1
    """Share of captions that are dropped, so that classifier-free guidance works."""
    mirror_share: float = 0.0
    """Share of latents that are mirrored. A VAE only nearly commutes with mirroring, and writing does not."""
    max_grad_norm: float = 1.0
    weight_decay: float = 0.01
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the forward passes; weights, optimizer and losses stay in float32."""
    checkpoint_steps: int = 50
    keep_checkpoints: int = 2
    log_steps: int = 5
    """Steps that a progress line and an MLflow point cover."""
    prompts: tuple[str, ...] = ()
    """Pictures of teacher and student at the end of each stage."""
    picture_steps: int = 12
    picture_guidance: float = 4.0


NANO_PROMPTS = ("a red apple, 3d render style", "a rabbit, soft cartoon style", "an elephant, retro blob style")


def ssd1b_nano() -> Distillation:
    """The nano student: what the demo trains live on two cores.

    As many parameters as SSD-1B's shape has at this width, but the blocks that the nano teacher is found to need:
    after half as many steps its pictures are nearer to the teacher's. --set student=ssd-1b takes SSD-1B's blocks.
    """

    def stage(name: str, teacher: str, steps: int) -> Stage:
        return Stage(name=name, teacher=teacher, carve=(name,), steps=steps, lr=5e-4, final_lr_share=0.1)

    return Distillation(
        run="ssd1b-nano",
        base="nano",
        latents="nano",
        stages=(stage("mid", "nano", 30), stage("down", "nano+retro", 50), stage("up", "nano+poster", 60)),
        registered_name="ssd1b-nano",
        student="nano-measured",
        cpus_per_worker=0.5,  # two workers leave one of two cores' logical CPUs to the readers
        checkpoint_steps=20,
        prompts=NANO_PROMPTS,
    )


def debug() -> Distillation:
    """Two steps a stage: proves the way, teaches nothing."""

    def stage(name: str, teacher: str) -> Stage:
        return Stage(name=name, teacher=teacher, carve=(name,), steps=2, lr=1e-4, warmup_steps=1)

    return Distillation(
        run="debug",
        base="nano",
        latents="nano",
        stages=(stage("mid", "nano"), stage("down", "nano+retro"), stage("up", "nano+poster")),
        registered_name="ssd1b-debug",
        global_batch=4,
        slices=2,
        cpus_per_worker=0.5,
        checkpoint_steps=2,
        log_steps=1,
        prompts=NANO_PROMPTS[:1],
        picture_steps=2,
    )


def ssd1b_a100() -> Distillation:
    """SSD-1B as its card says: 251,000 steps at 1e-5, global batch 32, three teachers in succession, 1024 px buckets.

    The card gives neither the steps of each teacher nor when blocks were removed; the split is ours.
    """

    def stage(name: str, teacher: str, steps: int) -> Stage:
        return Stage(name=name, teacher=teacher, carve=(name,), steps=steps, lr=1e-5, warmup_steps=500)

    return Distillation(
        run="ssd1b",
        base="stabilityai/stable-diffusion-xl-base-1.0",
        latents="sdxl",
        stages=(
            stage("mid", "stabilityai/stable-diffusion-xl-base-1.0", 51_000),
            stage("down", "stablediffusionapi/zavychromaxl-v100", 80_000),
            stage("up", "RunDiffusion/Juggernaut-XL-v9", 120_000),
        ),
        registered_name="ssd1b",
        global_batch=32,
        slices=16,
        num_workers=(1, 4),
        cpus_per_worker=8,
        gpus_per_worker=1,
        threads_per_worker=8,
        read_cpus=1,
        precision="bf16",
        checkpoint_steps=500,
        keep_checkpoints=3,
        log_steps=50,
        prompts=("a photograph of an astronaut riding a horse", "a red bicycle against a yellow wall"),
        picture_steps=25,
        picture_guidance=7.0,
    )


RECIPES: dict[str, Callable[[], Distillation]] = {recipe.__name__: recipe for recipe in (ssd1b_nano, debug, ssd1b_a100)}
