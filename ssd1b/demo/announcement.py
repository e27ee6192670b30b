"""What Segmind announced of SSD-1B, and what others measured of it, each figure with its source."""

from dataclasses import dataclass

BLOG = "Segmind's announcement"
CARD = "SSD-1B's model card"
FAST = "Hugging Face, diffusion-fast: A100 80 GB, bf16, 1024 px, 30 steps"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of the announcement."""

    teacher: float | None
    """SDXL's; None where the source gives none."""
    student: float | None
    """SSD-1B's."""
    unit: str
    source: str


PARAMETERS = Figure(teacher=2_567_463_684, student=1_331_334_404, unit="", source="counted from the released weights")
SPEED = Figure(teacher=1.54, student=2.44, unit="steps/s", source=f"{BLOG}: A100 80 GB, batch 8, 1024 px")
PICTURE = Figure(teacher=3.315, student=2.245, unit="s", source=FAST)
MEMORY = Figure(teacher=8.96, student=6.60, unit="GB", source=FAST)
STEPS = Figure(teacher=None, student=251_000, unit="steps", source=CARD)
PAIRS = Figure(teacher=None, student=15e6, unit="pairs", source=BLOG)
HOURS = Figure(teacher=None, student=200, unit="hours on 4 A100 80 GB", source=BLOG)
