"""The loss of layer-level distillation (Gupta et al., arXiv 2401.02677; Segmind's distill_sdxl.py):

    L = task * |y_student - y|^2 + output * |y_student - y_teacher|^2 + feature * sum_taps |f_student - f_teacher|^2

y is what the student predicts, noise or velocity. Every square is a mean over all but the batch dimension, in float32.
Rows stay apart until the end: the loss of a step is the sum over its real rows divided by the global batch, never a
mean of means, so it is the same however the rows are spread over workers and micro-batches.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from ssd1b.recipes.distill import Weights
from ssd1b.training.prediction import Kind

# B batch rows, C latent channels, H latent height, W latent width

SMALLEST = 1e-12
"""Of a teacher's feature's mean square, so that one of zeros does not divide by zero."""


def row_errors(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean squared difference of each row, float32, shape (B,)."""
    return mse_loss(a.float(), b.float(), reduction="none").flatten(1).mean(1)  # one kernel each way


def relative_errors(ours: Tensor, theirs: Tensor) -> Tensor:
    """Return each row's squared difference over the teacher's own square, float32, shape (B,).

    LAPTOP-Diff (arXiv 2404.11098) normalises feature terms by the norms of the teacher's features, since a few large
    ones rule a plain sum. 1 is what a student would get that answers zeros, at any place of any UNet.
    """
    square_B = theirs.float().pow(2).flatten(1).mean(1)
    return row_errors(ours, theirs) / square_B.clamp_min(SMALLEST)


def min_snr(alpha_B: Tensor, gamma: float, kind: Kind = "epsilon") -> Tensor:
    """Return the min-SNR weight of each row's error (arXiv 2303.09556, 3.4), shape (B,).

    alpha_B is the share of the picture's variance at the rows' timesteps (alpha bar). The weight of an error of the
    picture is min(snr, gamma); an error of the noise is snr times one of the picture, one of the velocity snr + 1
    times. So it is min(snr, gamma) / snr for noise and min(snr, gamma) / (snr + 1) for velocity.
    """
    snr_B = alpha_B.float() / (1 - alpha_B.float())
    if kind == "v_prediction":
        return snr_B.clamp(max=gamma) / (snr_B + 1)
    return (gamma / snr_B).clamp(max=1.0)  # not min(snr, gamma) / snr: where a latent is noise alone snr is 0


def terms(
    student_BCHW: Tensor,
    teacher_BCHW: Tensor | None,
    target_BCHW: Tensor,
    student_features: Mapping[str, Tensor],
    teacher_features: Mapping[str, Tensor],
    snr_B: Tensor | None = None,
    *,
    normalise: bool = False,
) -> dict[str, Tensor]:
    """Return each term per row, unweighted but for min-SNR: "task", "output" and "feature/<tap>", each of shape (B,).

    snr_B weighs the task and the output error; features have no timestep's scale and keep their weight. normalise
    makes the feature terms relative. Without a teacher there is no output term.
    """
    assert student_features.keys() == teacher_features.keys()
    rows = {"task": row_errors(student_BCHW, target_BCHW)}
    if teacher_BCHW is not None:
        rows["output"] = row_errors(student_BCHW, teacher_BCHW)
    if snr_B is not None:
        rows = {name: error_B * snr_B for name, error_B in rows.items()}
    errors = relative_errors if normalise else row_errors
    for name, feature in student_features.items():
        rows[f"feature/{name}"] = errors(feature, teacher_features[name])
    return rows


def total(terms_B: Mapping[str, Tensor], weights: Weights) -> Tensor:
    """Return the weighted loss of each row, shape (B,)."""
    features = [error_B for name, error_B in terms_B.items() if name.startswith("feature/")]
    loss_B = weights.task * terms_B["task"]
    if "output" in terms_B:
        loss_B = loss_B + weights.output * terms_B["output"]
    return loss_B + weights.feature * torch.stack(features).sum(0) if features else loss_B


def over_batch(rows_B: Tensor, real_B: Tensor, global_batch: int) -> Tensor:
    """Return the sum over real rows divided by the global batch. Padding counts for nothing, even where not finite."""
    return torch.where(real_B, rows_B, torch.zeros_like(rows_B)).sum() / global_batch
