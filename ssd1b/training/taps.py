"""Taps: the outputs of named modules, caught by forward hooks.

Which places are compared is the recipe's choice of features:

  "layers"          every resnet and every attention of the down and up blocks that the student has, and the mid block:
                    26 places for SSD-1B (arXiv 2401.02677; Segmind's distill_sdxl.py)
  "blocks"          the down, mid and up blocks as wholes (BK-SDM, arXiv 2305.15798)
  "self_attention"  the self-attention of every transformer block that the student has (KOALA, arXiv 2312.04005)

Shapes agree, because carving takes transformer blocks out of attentions, layers whole or the innermost levels, and
leaves the widths alone; so no projections are needed.
"""

import re
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from ssd1b.family.keep import KeepMap
from ssd1b.recipes.distill import Features

PLACES: dict[Features, re.Pattern[str]] = {
    "layers": re.compile(r"(down|up)_blocks\.\d+\.(resnets|attentions)\.\d+|mid_block"),
    "blocks": re.compile(r"(down|up)_blocks\.\d+|mid_block"),
    "self_attention": re.compile(r".*\.transformer_blocks\.\d+\.attn1"),
}


def tap_places(
    teacher: UNet2DConditionModel, student: UNet2DConditionModel, kept: KeepMap, features: Features = "layers"
) -> dict[str, str]:
    """Return the places of the student, in its order, with the teacher's place that each is compared with.

    `kept` is what the student keeps of a UNet of the teacher's anatomy.

    Raises:
        ValueError: the student has no place to compare, or one that the teacher lacks.
    """
    there = PLACES[features]
    ours, theirs = ([name for name, _ in unet.named_modules() if there.fullmatch(name)] for unet in (student, teacher))
    places = {name: kept.teacher_name(name) for name in ours}
    levels_gone = kept.up[0].index
    if features == "blocks" and levels_gone:
        # The student turns round a level earlier, and its innermost block takes the place of all that went: in the
        # teacher that is answered by the first up block above it (segmind/distill-sd pairs them so for SD-Tiny).
        places[f"down_blocks.{len(kept.down) - 1}"] = f"up_blocks.{levels_gone - 1}"
    if odd := sorted(set(places.values()) - set(theirs)) or ([] if places else ["no place at all"]):
        raise ValueError(
            f"teacher and student cannot be compared by features={features}: the teacher lacks {', '.join(odd)}"
        )
    return places


class Taps:
    """Catches the outputs of modules of a model under given names. A context manager; or call `close`.

    It listens from the start of a forward pass until `take`. So activation checkpointing, which runs modules a second
    time in the backward pass, leaves nothing behind: what is compared are the outputs of the first time, through which
    gradients flow as through any other.
    """

    def __init__(self, model: nn.Module, places: Mapping[str, str]) -> None:
        """places: the module to tap -> the name to keep its output under."""
        modules = dict(model.named_modules())
        self.caught: dict[str, Tensor] = {}
        self.count = len(places)
        self.listening = False
        self.handles = [modules[place].register_forward_hook(self.catcher(name)) for place, name in places.items()]
        self.handles.append(model.register_forward_pre_hook(self.listen))

    def listen(self, _model: nn.Module, _inputs: Any) -> None:
        self.listening = True

    def catcher(self, name: str) -> Any:
        def catch(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if self.listening:
                self.caught[name] = output if isinstance(output, Tensor) else output[0]

        return catch

    def take(self) -> dict[str, Tensor]:
        """Return what the last forward pass left, and forget it, so that no graph outlives its step."""
        caught, self.caught = self.caught, {}
        self.listening = False
        assert len(caught) == self.count, "take() must follow one forward pass"
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
