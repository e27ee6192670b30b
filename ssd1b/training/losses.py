"""The loss of layer-level distillation (Gupta et al., arXiv 2401.02677; Segmind's distill_sdxl.py):

    L = task * |e_student - noise|^2 + output * |e_student - e_teacher|^2 + feature * sum_taps |f_student - f_teacher|^2

Every square is a mean over all but the batch dimension, in float32. Rows stay apart until the end: the loss of a step
is the sum over its real rows divided by the global batch, never a mean of means, so it is the same however the rows
are spread over workers and micro-batches.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ssd1b.recipes.distill import Weights

# B batch rows, C latent channels, H latent height, W latent width


def row_errors(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean squared difference of each row, float32, shape (B,)."""
    return (a.float() - b.float()).pow(2).flatten(1).mean(1)


def min_snr(alphas_cumprod: Tensor, timestep_B: Tensor, gamma: float) -> Tensor:
    """Return min(snr, gamma) / snr of each row: the weight of an epsilon error (arXiv 2303.09556, 3.4), shape (B,)."""
    alpha_B = alphas_cumprod[timestep_B].float()
    snr_B = alpha_B / (1 - alpha_B)
    return snr_B.clamp(max=gamma) / snr_B


def terms(
    student_BCHW: Tensor,
    teacher_BCHW: Tensor,
    noise_BCHW: Tensor,
    student_features: Mapping[str, Tensor],
    teacher_features: Mapping[str, Tensor],
    snr_B: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return each term per row, unweighted but for min-SNR: "task", "output" and "feature/<tap>", each of shape (B,).

    snr_B weighs the task and the output error.
    """
    assert student_features.keys() == teacher_features.keys()
    rows = {"task": row_errors(student_BCHW, noise_BCHW), "output": row_errors(student_BCHW, teacher_BCHW)}
    if snr_B is not None:
        rows = {name: error_B * snr_B for name, error_B in rows.items()}
    for name, feature in student_features.items():
        rows[f"feature/{name}"] = row_errors(feature, teacher_features[name])
    return rows


def total(terms_B: Mapping[str, Tensor], weights: Weights) -> Tensor:
    """Return the weighted loss of each row, shape (B,)."""
    features = [error_B for name, error_B in terms_B.items() if name.startswith("feature/")]
    loss_B = weights.task * terms_B["task"] + weights.output * terms_B["output"]
    return loss_B + weights.feature * torch.stack(features).sum(0) if features else loss_B


def over_batch(rows_B: Tensor, real_B: Tensor, global_batch: int) -> Tensor:
    """Return the sum over real rows divided by the global batch. Padding counts for nothing, even where not finite."""
    return torch.where(real_B, rows_B, torch.zeros_like(rows_B)).sum() / global_batch
