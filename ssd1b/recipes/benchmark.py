"""Recipes of jobs.benchmark: what is measured, and against what."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from ssd1b.recipes.distill import Distillation, ssd1b_nano


@dataclass(frozen=True, kw_only=True)
class EngineContest:
    """Teacher against student on every engine of this machine, and what the LoRA bank costs, in one run."""

    teacher: str = "nano"
    """Source of the model (ssd1b.models.files), or a registry uri."""
    student: str = "ssd-1b"
    """A shape to carve it to, which is not trained: time does not depend on it. Or a source, or a registry uri."""
    batches: tuple[int, ...] = (1, 4, 8, 16)
    """Rows of a UNet call."""
    repeats: int = 9
    """Timed calls of each, in turns; the median counts."""
    ranks: tuple[int, ...] = (8, 32, 128)
    """Of the adapters that the bank is filled with."""
    adapters: tuple[int, ...] = (1, 8)
    """Different adapters among `bank_rows` rows, all of which have one."""
    bank_rows: int = 8
    image_steps: tuple[int, ...] = (4, 25)
    """Denoising steps, with guidance, that a VAE decode is put beside."""
    full_width: str = "ssd-1b"
    """A member of the family whose bank is measured at its real width too, with random weights; "" leaves it out."""
    full_size: str = "256x256"
    """Picture size there, WIDTHxHEIGHT."""
    full_rows: int = 2


@dataclass(frozen=True, kw_only=True)
class FullSize:
    """A teacher of real size with random weights, carved, saved, read again, and both called."""

    teacher: str = "sdxl"
    """A member of the family (ssd1b.family.table)."""
    student: str = "ssd-1b"
    size: str = "512x512"
    """Picture size of the calls, WIDTHxHEIGHT."""
    repeats: int = 3
    """Timed calls of each; the median counts."""
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class CorpusScale:
    """The metadata path of jobs.ingest over made-up rows in GRIT's schema, at a tenth of the size and at the whole."""

    rows: int = 15_000_000
    """A multiple of 400. About 90 bytes of disk a row for the corpus, 35 for what is kept of it."""
    global_batch: int = 128
    slices: int = 32
    """Of a global batch; see recipes/distill.py."""
    resume_at: tuple[float, ...] = (0.1, 0.5, 0.9)
    """Where in the first epoch a run is resumed, as shares of it."""
    part_rows: int = 1 << 20
    """Rows of a written file."""
    near_duplicates: bool = True
    """Search as many hashes of chance for near duplicates too."""
    scratch: str = ""
    """Where the rows are written for as long as it runs; "" is the system's temporary folder."""
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class DataPath:
    """Reading pictures and latents, against other libraries and the raw limits. See corpus/benchmark.py."""

    others: str = ""
    """Pythons that have webdataset, datasets, mosaicml-streaming or simplejpeg, joined by ":"; none leaves them out."""
    pictures: int = 1200
    """JPEGs that are made up, over all rounds."""
    megapixels: float = 1.2
    rounds: int = 5
    """Timed turns of each contender, each over a tar of its own; the median counts."""
    rows: int = 1024
    """Rows of latents of 1024 pixels that a round reads, 256 KiB each."""
    rows_per_slice: tuple[int, ...] = (2, 8, 32)
    """Slices for Ray Data to deliver; [] leaves Ray out."""
    feed_rows: int = 2048
    """Rows that Ray Data delivers, in slices of each size."""
    feed_workers: int = 2
    scratch: str = ""
    """Where up to two gigabytes are written for as long as it runs; "" is the system's temporary folder."""
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What is taken from an elastic run on a local cluster of several nodes, in order. See trials/faults.py."""

    events: tuple[str, ...] = (
        "grow",
        "worker",
        "node",
        "grow",
        "drain",
        "grow",
        "spot",
        "grow",
        "sigterm",
        "controller",
        "driver",
        "job",
        "head",
    )
    nodes: int = 1
    """Nodes of the cluster when the run begins, and after the cluster was started again; each holds a worker."""
    most_workers: int = 2
    checkpoint_steps: int = 20
    rows: int = 300
    """Rows of latents, of chance, 128 pixels."""
    steps: int = 20_000
    """More than the events last."""
    scratch: str = ""
    """Where the run is kept for as long as it lasts; "" is the system's temporary folder."""
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Curves:
    """One distillation by unlike workers, undisturbed and disturbed. See trials/curves.py."""

    distillation: Distillation
    """Its workers, run name and logging are set by each run."""
    workers: tuple[int, ...] = (1, 2, 3)
    """Runs of so many from end to end; the first is what the others are measured against."""
    events: tuple[str, ...] = ("worker", "node", "driver")
    """What is killed on the way in one more run, of up to the most workers (trials/bed.py)."""
    tolerance: float = 1e-12
    """How far losses of a step and last weights of two runs may be apart, as a share: float64 sums of what is told."""


@dataclass(frozen=True, kw_only=True)
class TrainStep:
    """What a training step costs, on this machine and at full size. See trials/benchmark.py."""

    base: str = "nano"
    """Teacher and first student; carved at once to `student`."""
    student: str = "ssd-1b"
    global_batch: int = 32
    slices: int = 4
    """Of a global batch, one after the other in a step."""
    steps: int = 3
    """That ours and plain PyTorch take from the same weights, to see that both learn the same."""
    rounds: int = 15
    """Timed turns of each contender, a step each; the median counts."""
    workers: tuple[int, ...] = (1, 2)
    """Worker groups that train through Ray; [] leaves Ray out."""
    worker_steps: int = 60
    full_size: str = "ssd1b_a100"
    """Recipe of jobs.distill whose cost at full size is estimated."""
    size: str = "1024x1024"
    gpus: int = 4
    gpu_tflops: float = 312.0
    """Peak of a GPU: A100, bfloat16, dense."""
    gpu_gib: float = 79.2
    """Memory of a GPU: what an A100 80 GB shows."""
    mfu: float = 0.4
    """Assumed: the share of the peak that the multiplications of a step get."""
    gpu_hour_usd: float = 2.0
    """Assumed."""
    scratch: str = ""
    """Where rows and runs are written for as long as it runs; "" is the system's temporary folder."""
    seed: int = 0


def engine() -> EngineContest:
    return EngineContest()


def engine_smoke() -> EngineContest:
    """A few calls: proves the way, measures nothing worth knowing."""
    return EngineContest(
        batches=(1, 2), repeats=1, ranks=(4,), adapters=(1, 2), bank_rows=2, image_steps=(4,), full_width=""
    )


def full_size() -> FullSize:
    """SDXL to SSD-1B in bfloat16: about 11 GiB of memory."""
    return FullSize()


def corpus_scale() -> CorpusScale:
    """Fifteen million rows of metadata, filtered, without duplicates, in buckets and in order: about ten minutes."""
    return CorpusScale()


def data() -> DataPath:
    """Read, decode, resize; latents through the feed: about five minutes; --set others=/path/to/python."""
    return DataPath()


def faults() -> Faults:
    """Kill, drain, grow and start again an elastic run in every way there is: about eight minutes."""
    return Faults()


def curves() -> Curves:
    """Three stages of twenty steps under three teachers, on the latents of `jobs.encode nano`."""
    whole = ssd1b_nano()
    return Curves(
        distillation=replace(
            whole, run="curves", stages=tuple(replace(stage, steps=20) for stage in whole.stages), global_batch=24,
            slices=6, checkpoint_steps=5, prompts=(),
        )
    )  # fmt: skip


def train() -> TrainStep:
    """A step of training beside plain PyTorch, its own passes, Ray's delivery and the full size: about four minutes."""
    return TrainStep()


RECIPES: dict[str, Callable[[], EngineContest | FullSize | CorpusScale | DataPath | Faults | Curves | TrainStep]] = {
    "engine": engine,
    "engine_smoke": engine_smoke,
    "full_size": full_size,
    "corpus_scale": corpus_scale,
    "data": data,
    "faults": faults,
    "curves": curves,
    "train": train,
}
