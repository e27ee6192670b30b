"""What a student is measured on, by whom, and against which teacher."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ssd1b.corpus.backdrops import BACKDROPS, frame_colour
from ssd1b.corpus.colours import INKS
from ssd1b.recipes.pretrain import BASE_STYLES, CONCEPTS, HELD_OUT, SCENES


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """Something that a prompt may ask of a picture and that pixels show."""

    name: str = "background"
    pattern: str = r"on an? (\w+) background"
    """Regular expression; its group is the value that the prompt asks for."""
    values: dict[str, str] = field(default_factory=lambda: dict(INKS))
    """Name -> colour "#rrggbb"."""
    default: str = "white"
    """What is meant where a prompt does not say."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Words added to a prompt at the same seed: what they should not touch must stay as it was."""

    name: str
    clause: str
    """Put behind the prompt."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """Bounds that a published protocol sets for a number of the model it was made for."""

    name: str
    """The metric, see ssd1b.evaluation.compare."""
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """One run of jobs.evaluate."""

    name: str
    """Registered model."""
    teacher: str
    """Source of the model it is measured against (ssd1b.models.files)."""
    alias: str = "candidate"
    """Alias of the version that is measured."""
    prompts: int = 24
    """Prompts of held-out objects, and as many again of trained ones."""
    combinations: int = 0
    """Prompts of objects and styles that were both trained, but never together."""
    scenes: int = 0
    """Prompts of trained drawings before a backdrop, and as many again of held-out pairs of style and backdrop."""
    backdrops: tuple[str, ...] = SCENES
    held_out: tuple[tuple[str, str], ...] = HELD_OUT
    """Pairs of (style, backdrop) that were never trained."""
    styles: tuple[str, ...] = BASE_STYLES
    """Styles that the teacher was trained on."""
    subgroups: tuple[str, ...] = CONCEPTS
    """Subgroups of the corpus that prompts are taken from; all where empty."""
    captions: str = ""
    """Tab-separated file with a column "caption" that gives the prompts in place of the corpus."""
    captions_used: int = 5000
    """How many captions the file must hold."""
    seed: int = 0
    """Prompt i is drawn with seed + i by both models."""
    one_seed: bool = False
    """All prompts are drawn with `seed`."""
    steps: int = 16
    """Denoising steps."""
    guidance: float = 4.0
    sampler: str = "dpmpp_2m"
    negative: str | None = None
    """What the pictures should not show; None is the model's unconditional prompt."""
    side: int = 128
    """Side of the pictures, pixels."""
    batch: int = 16
    """Pictures made at a time."""
    device: str = "cpu"
    """Where models and extractors run, as torch names it."""
    scorer: str = "nano"
    """What scores a picture against its prompt: "nano", which ships, or the folder of a CLIP."""
    features: str = "efflite0"
    """Whose features Frechet distance and KID are in: "efflite0", which ships, or a file of InceptionV3's weights."""
    preferences: dict[str, str] = field(default_factory=dict)
    """Preference models by name: "pickscore" -> folder of its CLIP, "hpsv2" -> package.module:function."""
    references: int = 0
    """Drawings of the corpus that pictures are compared with as distributions; none are with 0."""
    moments: str = ""
    """File with mean and covariance of real pictures' features, which take the drawings' place in Frechet distance."""
    moments_pictures: int = 0
    """How many pictures those are of."""
    attribute: Attribute = field(default_factory=Attribute)
    probes: tuple[Probe, ...] = ()
    probe_prompts: int = 8
    """Trained prompts that each probe is put behind."""
    windows: tuple[Window, ...] = ()
    """Where a protocol expects numbers of the teacher."""
    error_pictures: int = 32
    """Pictures of each split that the two models' noise estimates are compared on; 0 leaves that out."""
    timing_rounds: int = 8
    """How often the two models' steps are timed in turn."""
    timing_batch: int = 8
    """Rows of a timed step."""
    sheet_prompts: int = 12
    """Rows of the contact sheet."""


PLEASE = Probe(name="please", clause=", please")
"""Asks for nothing."""
BLUE = Probe(name="blue background", clause=", on a blue background")
"""Asks for the background alone."""


BACKDROP = Attribute(
    name="backdrop",
    pattern=rf"(?:on an?|in an?|at the|at) ({'|'.join(BACKDROPS)})\b",
    values={"white": "#ffffff", **{name: frame_colour(each) for name, each in BACKDROPS.items()}},
)
"""What lies behind the object, told by the median colour along the border."""


def nano() -> Evaluate:
    """The nano student against the last stage's teacher, which draws the base's styles and one of its own."""
    return Evaluate(
        name="ssd1b-nano",
        teacher="nano+poster",
        styles=(*BASE_STYLES, "muted poster"),
        combinations=12,
        scenes=24,
        attribute=BACKDROP,
        references=256,
        probes=(PLEASE, BLUE),
    )


def debug() -> Evaluate:
    """A few pictures in a few steps: proves the path, measures nothing worth knowing."""
    return Evaluate(
        name="ssd1b-nano",
        teacher="nano",
        prompts=3,
        steps=2,
        guidance=1.0,
        batch=6,
        timing_rounds=2,
        sheet_prompts=4,
        error_pictures=2,
        references=6,
        probes=(BLUE,),
        probe_prompts=2,
    )


def mlperf_sdxl() -> Evaluate:
    """MLPerf inference's protocol for SDXL on real weights, student beside teacher, on a GPU.

    5,000 captions of COCO 2014's validation set, Euler, 20 steps, guidance 8, its negative prompt, 1024 px, and one
    latent for all: `torch.randn` of seed 0, which is what `tools/latent.py` saves. Its windows are for SDXL itself,
    here the teacher, and tell whether the measuring is right. CLIP score is 100 times the cosine of OpenAI's ViT-B/32;
    FID is that of pytorch-fid's Inception against `tools/val2014.npz`, which does not say of how many pictures it is
    (the set has 40,504).

    Source: github.com/mlcommons/inference at b66003e1: text_to_image/{backend_pytorch,coco}.py, text_to_image/tools/,
    tools/submission/submission_checker/constants.py.

    Fetch the captions, the statistics and the weights first, and give their paths with `--set`.
    """
    return Evaluate(
        name="ssd1b",
        teacher="stabilityai/stable-diffusion-xl-base-1.0",
        captions="coco2014/captions/captions.tsv",
        one_seed=True,
        steps=20,
        guidance=8.0,
        sampler="euler",
        negative="normal quality, low quality, worst quality, low res, blurry, nsfw, nude",
        side=1024,
        batch=4,
        device="cuda",
        scorer="clip-vit-base-patch32",
        features="pt_inception-2015-12-05-6726825d.pth",
        moments="val2014.npz",
        moments_pictures=40_504,
        windows=(
            Window(name="clip_score_teacher", low=31.68631873, high=31.81331801),
            Window(name="fid_teacher", low=23.01085758, high=23.95007626),
        ),
        error_pictures=0,
    )


RECIPES: dict[str, Callable[[], Evaluate]] = {"nano": nano, "debug": debug, "mlperf_sdxl": mlperf_sdxl}
