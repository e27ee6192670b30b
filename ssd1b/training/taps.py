"""Taps: the outputs of named modules, caught by forward hooks.

Feature distillation compares the same 26 places in teacher and student: every resnet and every attention of the down
and up blocks, and the mid block. Their shapes agree, because carving takes transformer blocks out of attentions and
leaves the widths alone; so no projections are needed.
"""

import re
from types import TracebackType
from typing import Any

from diffusers import UNet2DConditionModel
from torch import Tensor, nn

PLACES = re.compile(r"(down|up)_blocks\.\d+\.(resnets|attentions)\.\d+|mid_block")


def tap_names(teacher: UNet2DConditionModel, student: UNet2DConditionModel) -> tuple[str, ...]:
    """Return the places that both have, in the teacher's order.

    Raises:
        ValueError: they have none in common, or a place exists on one side only.
    """
    ours, theirs = ([name for name, _ in unet.named_modules() if PLACES.fullmatch(name)] for unet in (student, teacher))
    if not theirs or set(ours) != set(theirs):
        odd = sorted(set(ours) ^ set(theirs)) or ["no place at all"]
        raise ValueError(f"teacher and student cannot be compared layer by layer: they differ in {', '.join(odd)}")
    return tuple(theirs)


class Taps:
    """Catches the outputs of the named modules of a model. Use it as a context manager, or call `close`."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        modules = dict(model.named_modules())
        self.caught: dict[str, Tensor] = {}
        self.handles = [modules[name].register_forward_hook(self.catcher(name)) for name in names]

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
