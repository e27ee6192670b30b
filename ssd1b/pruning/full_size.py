"""The real size on one machine: SDXL's UNet carved to SSD-1B, saved, read again, and both called.

The weights are random: no hub is needed, and neither time nor memory depends on their values.
"""

import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from ssd1b.command import show
from ssd1b.family.carve import carve, keep_map, parameters
from ssd1b.family.keep import KeepMap
from ssd1b.family.measure import example, measure
from ssd1b.family.table import FAMILY, member
from ssd1b.models.files import load_unet
from ssd1b.provenance import machine
from ssd1b.recipes.benchmark import FullSize
from ssd1b.sizes import Size

DTYPE = torch.bfloat16


def full_size(config: FullSize) -> dict[str, Any]:
    """Carve, save, read and call; print a table and return the same numbers.

    Raises:
        ValueError: an output is not finite, or what was read is not what was saved.
    """
    size = Size.parse(config.size)
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        started = time.monotonic()
        done = work()
        seconds[name] = round(time.monotonic() - started, 1)
        show(f"{name}: {seconds[name]:.1f} s, peak {peak_gib():.1f} GiB")
        return done

    teacher = timed(f"{config.teacher} with random weights", lambda: random_unet(config.teacher, config.seed))
    kept = keep_map(teacher.config, config.student)
    with tempfile.TemporaryDirectory() as folder:
        expected = timed(f"carved to {config.student}, saved", lambda: carve_to(teacher, kept, Path(folder) / "unet"))
        written = sum(path.stat().st_size for path in Path(folder).rglob("*.safetensors"))
        student = timed("read again", lambda: load_unet(folder, DTYPE))
        same(student, expected)
        times = call_times({config.teacher: teacher, config.student: student}, size, config.repeats, config.seed)
    counts = {name: parameters(unet) for name, unet in ((config.teacher, teacher), (config.student, student))}
    work = {at: {name: measure(FAMILY[name], side).tflops for name in counts}
            for at, side in ((config.size, size), ("native size", None))}  # fmt: skip
    result = {
        "size": config.size,
        "dtype": str(DTYPE).removeprefix("torch."),
        "parameters": counts,
        "call_s": {name: round(value, 2) for name, value in times.items()},
        "call_ratio": round(times[config.teacher] / times[config.student], 3),
        "tflops_ratio": {at: round(each[config.teacher] / each[config.student], 3) for at, each in work.items()},
        "file_bytes": written,
        "step_s": seconds,
        "peak_gib": round(peak_gib(), 2),
        "machine": machine(["torch"]),
    }
    show(f"{'':24}{config.teacher:>15}{config.student:>15}{'ratio':>8}")
    show(f"{'parameters':24}{counts[config.teacher]:>15,}{counts[config.student]:>15,}"
         f"{counts[config.teacher] / counts[config.student]:>8.3f}")  # fmt: skip
    show(f"{'s per call, ' + config.size:24}{times[config.teacher]:>15.2f}{times[config.student]:>15.2f}"
         f"{result['call_ratio']:>8.3f}")  # fmt: skip
    for at, each in work.items():
        show(f"{'TFLOPs, ' + at:24}{each[config.teacher]:>15.3f}{each[config.student]:>15.3f}"
             f"{each[config.teacher] / each[config.student]:>8.3f}")  # fmt: skip
    return result


@torch.no_grad()
def random_unet(name: str, seed: int) -> UNet2DConditionModel:
    """Return a member with random weights in bfloat16, made in place: at no time is there a second copy."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**member(name))
    unet = unet.to(DTYPE).to_empty(device="cpu").eval()
    draw = torch.Generator().manual_seed(seed)
    for module in unet.modules():
        for kind, weight in module.named_parameters(recurse=False):
            if isinstance(module, nn.GroupNorm | nn.LayerNorm):
                weight.fill_(float(kind == "weight"))
            elif weight.ndim == 1:
                weight.zero_()
            else:
                weight.normal_(std=(weight[0].numel()) ** -0.5, generator=draw)
    return unet  # type: ignore[no-any-return]


def carve_to(teacher: UNet2DConditionModel, kept: KeepMap, folder: Path) -> dict[str, Tensor]:
    """Carve, save, and return the sum of each weight."""
    student = carve(teacher, kept)
    student.save_pretrained(folder)
    return {name: weight.sum(dtype=torch.float64) for name, weight in student.state_dict().items()}


def same(student: UNet2DConditionModel, expected: dict[str, Tensor]) -> None:
    """Raise ValueError unless the weights add up to what was saved."""
    wrong = [name for name, weight in student.state_dict().items() if weight.sum(dtype=torch.float64) != expected[name]]
    if wrong or len(expected) != len(student.state_dict()):
        raise ValueError(f"what was read is not what was saved: {wrong[:3]}")


@torch.no_grad()
def call_times(unets: dict[str, UNet2DConditionModel], size: Size, repeats: int, seed: int) -> dict[str, float]:
    """Return the median seconds of a call of each; they take turns, so that a busy machine slows both."""
    taken: dict[str, list[float]] = {name: [] for name in unets}
    for _ in range(repeats + 1):
        for name, unet in unets.items():
            torch.manual_seed(seed)
            asked = {key: cast(value) for key, value in example(unet, size).items()}
            started = time.monotonic()
            noise_BCHW = unet(**asked)[0]
            taken[name].append(time.monotonic() - started)
            if not noise_BCHW.isfinite().all():
                raise ValueError(f"{name}'s output is not finite")
    return {name: statistics.median(seconds[1:]) for name, seconds in taken.items()}  # the first call warms up


def cast(value: Any) -> Any:
    """Return a tensor, or the tensors of a mapping, in the precision of the weights."""
    if isinstance(value, dict):
        return {key: cast(each) for key, each in value.items()}
    return value.to(DTYPE) if isinstance(value, Tensor) else value


def peak_gib() -> float:
    """Return the most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
