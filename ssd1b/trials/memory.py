"""How much memory a distillation step takes at full size, counted without a GPU.

What lies there for the whole run is arithmetic. What a step keeps for its backward pass is counted: the step's own code
runs on PyTorch's fake tensors, which have shapes and no values, and every tensor that autograd saves is added up. The
count is PyTorch's for the CPU under bfloat16 autocast. CUDA's autocast also keeps the inputs of norms in float32, and
the allocator leaves gaps, so a GPU needs more than the count says; all in float32 is counted as the other end.
"""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from ssd1b.family.carve import keep_map
from ssd1b.family.measure import example
from ssd1b.family.table import member, teacher_of
from ssd1b.sizes import Size
from ssd1b.training.losses import terms
from ssd1b.training.machine import GIB
from ssd1b.training.taps import Taps, tap_places

HALF, SINGLE = 2, 4
"""Bytes of a number."""


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """Bytes that lie on the GPU for as long as a stage lasts, of a training in bfloat16 autocast with AdamW."""

    teacher: int
    text: int
    weights: int
    gradients: int
    moments: int

    @property
    def total(self) -> int:
        return self.teacher + self.text + self.weights + self.gradients + self.moments


def fixed(teacher: int, student: int, text: int) -> Fixed:
    """Return it for so many parameters: teacher and text towers in bfloat16, all else in float32."""
    return Fixed(
        teacher=HALF * teacher,
        text=HALF * text,
        weights=SINGLE * student,
        gradients=SINGLE * student,
        moments=2 * SINGLE * student,
    )


def kept_bytes(name: str, size: Size, rows: int, *, half: bool = True) -> int:
    """Return the bytes that a step of so many rows keeps for its backward pass: activations and copies of weights.

    name: a student of the family; it is compared with its teacher at every layer. half: under bfloat16 autocast.

    Raises:
        ValueError: it has no teacher in the family.
    """
    teacher_name = teacher_of(name)
    if teacher_name is None:
        raise ValueError(f"{name} is a teacher: give one of its students")
    saved: dict[Any, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[storage(tensor)] = tensor  # held, so that no other tensor gets its place
        return tensor

    with FakeTensorMode():
        teacher, student = (UNet2DConditionModel(**member(each)) for each in (teacher_name, name))
        teacher.requires_grad_(False)
        places = tap_places(teacher, student, keep_map(teacher.config, name))
        asked = example(student, size, rows)
        with (
            Taps(teacher, {there: there for there in places.values()}) as theirs,
            Taps(student.train(), places) as ours,
            saved_tensors_hooks(keep, lambda tensor: tensor),
        ):
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                with torch.no_grad():
                    teacher_BCHW = teacher(**asked)[0]
                student_BCHW = student(**asked)[0]
            features = theirs.take()
            rows_B = terms(student_BCHW, teacher_BCHW, asked["sample"], ours.take(), features)
            torch.stack(list(rows_B.values())).sum()
        for feature in features.values():
            keep(feature)
        own = {storage(parameter) for parameter in student.parameters()}
    return sum(tensor.untyped_storage().nbytes() for key, tensor in saved.items() if key not in own)


def storage(tensor: Tensor) -> Any:
    return tensor.untyped_storage()._cdata


def fitting_rows(fixed_bytes: int, first: int, each: int, gpu_gib: float) -> int:
    """Return the largest power of two of rows that fits; 0 if none does.

    first is what a step of one row keeps, each is what every further row adds, bytes.
    """
    free = gpu_gib * GIB - fixed_bytes - first
    if free < 0:
        return 0
    most, rows = 1 + int(free // each), 1
    while 2 * rows <= most:
        rows *= 2
    return rows
