"""The gradient of a step: the sum of its slices' gradients.

Floats depend on the order in which they are added, and Adam makes much of it: where a gradient is next to nothing, its
rounding decides which way a weight goes. Two runs of unlike numbers of workers drift apart by per cent within twenty
steps. So `InOrder` adds the slices' gradients in the order of the slices, whoever has made them: where a slice's own
gradient is the same on every worker, as on a CPU, the weights are the same to the last bit at any number of workers.

`Reduced` is PyTorch's data parallelism: fewer bytes, sent while the last backward pass runs, in an order of its own.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
import torch.distributed
from torch import Tensor, nn

from ssd1b.training.pupil import Pupil

# W workers, P a worker's share of all parameters laid flat, padded to W * P


class InOrder:
    """Each worker adds its share of the parameters over all workers' slices, and then all are told all shares.

    A worker's turn-th slice of a step is slice turn * W + rank (ssd1b.elastic.slices.slot_of), so the slices of one
    turn follow one another by rank. One worker alone needs none of it: autograd adds in this order too.
    """

    scale = 1
    """What a slice's loss is multiplied by before its backward pass."""

    def __init__(self, parameters: Sequence[nn.Parameter], world_size: int) -> None:
        self.parameters, self.world_size = parameters, world_size
        if world_size == 1:
            return
        numbers = sum(parameter.numel() for parameter in parameters)
        share = -(-numbers // world_size)
        like = parameters[0].detach()
        self.own_N = like.new_zeros(share * world_size)
        self.others_WP = like.new_empty(world_size, share)
        self.sum_P = like.new_zeros(share)

    @contextmanager
    def slice(self, *, last: bool) -> Iterator[None]:
        """Within it, a worker makes the gradient of a slice; after the last of a step every worker has the sum."""
        yield
        if self.world_size == 1:
            return
        for parameter, place in zip(self.parameters, self.places(), strict=True):
            if parameter.grad is None:
                place.zero_()
            else:
                place.copy_(parameter.grad)
            parameter.grad = None
        torch.distributed.all_to_all_single(self.others_WP.view(-1), self.own_N)
        for of_worker_P in self.others_WP:
            self.sum_P += of_worker_P
        if last:
            torch.distributed.all_gather_into_tensor(self.own_N, self.sum_P)
            self.sum_P.zero_()
            for parameter, place in zip(self.parameters, self.places(), strict=True):
                parameter.grad = place.clone()

    def places(self) -> Iterator[Tensor]:
        """Yield where each parameter's gradient lies in the flat buffer."""
        begin = 0
        for parameter in self.parameters:
            end = begin + parameter.numel()
            yield self.own_N[begin:end].view_as(parameter)
            begin = end


class Reduced:
    """DistributedDataParallel around the student: an all-reduce that overlaps the backward pass of the last slice."""

    def __init__(self, module: nn.Module, world_size: int) -> None:
        self.module = module
        self.scale = world_size  # the wrapper divides by it

    @contextmanager
    def slice(self, *, last: bool) -> Iterator[None]:
        """See `InOrder.slice`."""
        if last or not isinstance(self.module, nn.parallel.DistributedDataParallel):
            yield
            return
        with self.module.no_sync():
            yield


def summed(
    how: Literal["in_order", "reduced"], student: Pupil, world_size: int, wrap: Callable[[nn.Module], nn.Module]
) -> InOrder | Reduced:
    """Return what sums a pupil's gradients; wrap makes a model data-parallel over the workers."""
    if how == "in_order":
        return InOrder(list(student.parameters.values()), world_size)
    student.module = wrap(student.student)
    return Reduced(student.module, world_size)
