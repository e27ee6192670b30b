"""What the workers know together after each step: the sums of the loss terms, and whether anyone must leave.

One all-reduce carries both, and no GPU is waited for: sums stay on it until a line is due, and whether to leave is read
one step later, when the answer has long arrived; on a CPU it is there at once. So all leave after the same step.
"""

from collections.abc import Mapping

import torch
import torch.distributed
from torch import Tensor

from ssd1b.training.notice import KINDS, Kind, Notice


class Together:
    """One worker's side of it."""

    def __init__(self, world_size: int, device: torch.device) -> None:
        self.world_size, self.device = world_size, device
        self.later = device.type == "cuda"
        self.asked = torch.zeros(len(KINDS), dtype=torch.float64, pin_memory=self.later)
        """How many workers were asked to leave, by kind, on the host."""
        self.arrived: torch.cuda.Event | None = None

    def sum(self, parts: Mapping[str, Tensor], notice: Notice | None) -> tuple[dict[str, Tensor], Kind | None]:
        """Return the parts summed over all workers, on the device, and why all of them leave after this step, or None.

        The sums are made in float64, so that what is told of a step hardly depends on who has made which part of it.

        What one worker is told is acted on in the same step on a CPU, in the next on a GPU.
        """
        before = self.why() if self.later else None
        own = torch.tensor([float(notice is not None and notice.kind == kind) for kind in KINDS], dtype=torch.float64)
        values = torch.cat([torch.stack([part.double() for part in parts.values()]), own.to(self.device)])
        if self.world_size > 1:
            torch.distributed.all_reduce(values)
        self.asked.copy_(values[len(parts) :], non_blocking=True)
        if self.later:
            self.arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self.arrived.record(torch.cuda.current_stream(self.device))
        sums = dict(zip(parts, values[: len(parts)].unbind(), strict=True))
        return sums, before if self.later else self.why()

    def why(self) -> Kind | None:
        """Return the first kind that any worker was told when this was last summed."""
        if self.arrived:
            self.arrived.synchronize()
        return next((kind for kind, count in zip(KINDS, self.asked.tolist(), strict=True) if count), None)
