"""Taps: the outputs of named modules, caught by forward hooks.

Feature distillation compares teacher and student at every resnet and every attention of the down and up blocks that
the student has, and at the mid block: 26 places for SSD-1B. Their shapes agree, because carving takes transformer
blocks out of attentions, or layers whole, and leaves the widths alone; so no projections are needed.
"""

import re
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from ssd1b.family.keep import KeepMap

PLACES = re.compile(r"(down|up)_blocks\.\d+\.(resnets|attentions)\.\d+|mid_block")


def tap_places(teacher: UNet2DConditionModel, student: UNet2DConditionModel, kept: KeepMap) -> dict[str, str]:
    """Return the places of the student, in its order, with the teacher's place that each is compared with.

    `kept` is what the student keeps of a UNet of the teacher's anatomy.

    Raises:
        ValueError: the student has no place to compare, or one that the teacher lacks.
    """
    ours, theirs = ([name for name, _ in unet.named_modules() if PLACES.fullmatch(name)] for unet in (student, teacher))
    places = {name: kept.teacher_name(name) for name in ours}
    if odd := sorted(set(places.values()) - set(theirs)) or ([] if places else ["no place at all"]):
        raise ValueError(f"teacher and student cannot be compared layer by layer: the teacher lacks {', '.join(odd)}")
    return places


class Taps:
    """Catches the outputs of modules of a model under given names. A context manager; or call `close`."""

    def __init__(self, model: nn.Module, places: Mapping[str, str]) -> None:
        """places: the module to tap -> the name to keep its output under."""
        modules = dict(model.named_modules())
        self.caught: dict[str, Tensor] = {}
        self.handles = [modules[place].register_forward_hook(self.catcher(name)) for place, name in places.items()]

    def catcher(self, name: str) -> Any:
        def catch(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self.caught[name] = output if isinstance(output, Tensor) else output[0]

        return catch

    def take(self) -> dict[str, Tensor]:
        """Return what the last forward pass left, and forget it, so that no graph outlives its step."""
        caught, self.caught = self.caught, {}
        assert len(caught) == len(self.handles), "take() must follow one forward pass"
        return caught

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self.handles:
            handle.remove()
        self.caught = {}

    def __enter__(self) -> "Taps":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
