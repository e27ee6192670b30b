"""Recipes of jobs.distill: the schedule, the data and the machines of a distillation."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

Features: TypeAlias = Literal["layers", "blocks", "self_attention"]
"""Where teacher and student are compared, see ssd1b.training.taps."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights of the three parts of the loss (Segmind's distill_sdxl.py: 1, 0.5, 0.5).

    Without output and feature the teacher is not asked: plain training.
    """

    task: float = 1.0
    """Of the error against the noise (or velocity, where that is what the base predicts)."""
    output: float = 0.5
    """Of the error against the teacher's estimate of it."""
    feature: float = 0.5
    """Of the sum of the errors against the teacher's features. 0: no features are caught."""
    snr_gamma: float | None = None
    """Min-SNR weighting (arXiv 2303.09556) of task and output error; features keep their weight. None: none."""


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
    """How long a group trains at least before it makes way for a larger one."""
    seed: int = 0
    features: Features = "layers"
    """Where teacher and student are compared."""
    normalise: bool = False
    """Every feature term is relative to the teacher's feature (LAPTOP-Diff, arXiv 2404.11098), so that a few large ones
    do not rule the sum."""
    from_scratch: bool = False
    """The first student has random weights instead of the base's."""
    drop_share: float = 0.1
    """Share of captions that are dropped, drawn anew each time a row is met, so that classifier-free guidance works."""
    noise_offset: float = 0.0
    """Standard deviation of a shift that all of a channel's noise shares, so that pictures may be dark or bright as a
    whole; 0.05 to 0.1 where it is wanted."""
    ema_decay: float | None = None
    """The student of a stage is the moving average of its weights (BK-SDM: 0.9999). None: its last weights."""
    validate_rows: int = 0
    """Held-out rows that the loss is measured on at each checkpoint; a stage's result is then its best checkpoint.
    0: its last."""
    mirror_share: float = 0.0
    """Share of latents that are mirrored. A VAE only nearly commutes with mirroring, and writing does not."""
    max_grad_norm: float = 1.0
    weight_decay: float = 0.01
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the forward passes; weights, optimizer and losses stay in float32."""
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    """With 8 bits its state takes a quarter of the memory; it asks for a GPU and the package bitsandbytes."""
    activation_checkpointing: bool = False
    """Activations are computed again in the backward pass instead of kept: less memory, a longer step."""
    compiled: bool = False
    """The student is compiled by torch.compile: minutes for each new shape, then shorter steps."""
    gradients: Literal["in_order", "reduced"] = "in_order"
    """How the workers' gradients are summed (training/gradients.py): in the order of the slices, so that any number of
    workers gives the same bits, or by PyTorch's data parallelism, which sends less and hides what it sends."""
    teacher_device: Literal["same", "next", "cpu"] = "same"
    """Where the teacher lies: with its student, on the GPU after it (gpus_per_worker=2), or on the CPU."""
    checkpoint_steps: int = 50
    keep_checkpoints: int = 2
    log_steps: int = 5
    """Steps that a progress line and an MLflow point cover."""
    prompts: tuple[str, ...] = ()
    """Pictures of teacher and student at the end of each stage."""
    picture_steps: int = 12
    picture_guidance: float = 4.0
    spot_notices: tuple[str, ...] = ()
    """What tells a worker's machine that it is being taken back: "aws", "gcp", "file:/path" or a URL, {node} in it
    being the node's id. The workers then keep a checkpoint and go on elsewhere; SIGTERM and a drain of Ray's are
    understood without."""


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


def ssd1b_nano_long() -> Distillation:
    """The same in four times the steps, registered by its own name: what `make reproduce-nano` trains."""
    short = ssd1b_nano()
    return replace(
        short,
        run="ssd1b-nano-reproduced",
        registered_name="ssd1b-nano-reproduced",
        stages=tuple(replace(stage, steps=4 * stage.steps) for stage in short.stages),
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


def a100(stages: tuple[Stage, ...], *, run: str, base: str, latents: str, student: str, rows: int) -> Distillation:
    """One to four A100 80 GB; the micro-batches of a step follow from how many there are."""
    return Distillation(
        run=run,
        base=base,
        latents=latents,
        stages=stages,
        registered_name=run,
        student=student,
        global_batch=rows,
        slices=16,
        num_workers=(1, 4),
        cpus_per_worker=8,
        gpus_per_worker=1,
        threads_per_worker=8,
        read_cpus=1,
        precision="bf16",  # the cards say fp16; bf16 has float32's range, so no loss has to be scaled
        gradients="reduced",  # a GPU's kernels add in an order of their own anyway
        checkpoint_steps=500,
        keep_checkpoints=3,
        log_steps=50,
        prompts=("a photograph of an astronaut riding a horse", "a red bicycle against a yellow wall"),
        picture_steps=25,
        picture_guidance=7.0,
    )


SDXL_BASE = "stabilityai/stable-diffusion-xl-base-1.0"
SDXL_TEACHERS = (SDXL_BASE, "stablediffusionapi/zavychromaxl-v100", "RunDiffusion/Juggernaut-XL-v9")
"""SDXL, ZavyChromaXL and JuggernautXL, in the order of the cards of SSD-1B and Segmind-Vega."""


def in_succession(steps: tuple[int, int, int]) -> tuple[Stage, ...]:
    """The mid block, the way down and the way up, each under the next teacher, at 1e-5."""
    return tuple(
        Stage(name=part, teacher=teacher, carve=(part,), steps=count, lr=1e-5, warmup_steps=500)
        for part, teacher, count in zip(("mid", "down", "up"), SDXL_TEACHERS, steps, strict=True)
    )


def ssd1b_a100() -> Distillation:
    """SSD-1B as its card says: 251,000 steps at 1e-5, global batch 32, three teachers in succession, 1024 px buckets.

    On four GPUs a step is 2 rows x 4 GPUs x 4 micro-batches. The card gives neither the steps of each teacher nor when
    blocks were removed; the split is ours.
    """
    stages = in_succession((51_000, 80_000, 120_000))
    return a100(stages, run="ssd1b", base=SDXL_BASE, latents="sdxl", student="ssd-1b", rows=32)


def vega_a100() -> Distillation:
    """Segmind-Vega as its card says: 540,000 steps at 1e-5, batch 16 accumulated 8 times, the same three teachers.

    Read as 128 rows a step: 4 rows x 4 GPUs x 8 micro-batches. The card does not say whether its 16 counts the
    accumulation, as SSD-1B's 32 does; --set global_batch=16 --set slices=8 is that reading. The split of the steps is
    ours.
    """
    stages = in_succession((110_000, 170_000, 260_000))
    made = a100(stages, run="vega", base=SDXL_BASE, latents="sdxl", student="segmind-vega", rows=128)
    return replace(made, slices=32)


def sd_line(student: str, carve: tuple[str, ...], steps: int) -> Distillation:
    """Segmind's students of SD-1.5: one stage, block-level features, 1e-4, global batch 32, 512 px.

    segmind/distill-sd: loss weights 1, 0.5, 0.5 and the teacher Realistic Vision 4.0, which is also what is carved. The
    learning rate is the model card's; the example in that repository has 1e-5 and a cosine.
    """
    base = "SG161222/Realistic_Vision_V4.0"
    stage = Stage(name="all", teacher=base, carve=carve, steps=steps, lr=1e-4, warmup_steps=500)
    made = a100((stage,), run=student, base=base, latents="sd15", student=student, rows=32)
    return replace(made, features="blocks")


def sd_small() -> Distillation:
    """SD-Small as its card says: 95,000 steps. Latents: jobs.encode with --set name=sd15 and the base as its model."""
    return sd_line("sd-small", ("down", "up"), 95_000)


def sd_tiny() -> Distillation:
    """SD-Tiny: 125,000 steps (Segmind's announcement), as SD-Small otherwise; the innermost level goes too."""
    return sd_line("sd-tiny", ("mid", "down", "up"), 125_000)


RECIPES: dict[str, Callable[[], Distillation]] = {
    recipe.__name__: recipe for recipe in (ssd1b_nano, ssd1b_nano_long, debug, ssd1b_a100, vega_a100, sd_small, sd_tiny)
}
