"""The loss, against arithmetic done by hand and against Segmind's formula."""

import pytest
import torch
from diffusers import DDPMScheduler
from torch.nn import functional as F

from ssd1b.recipes.distill import Weights
from ssd1b.training.losses import min_snr, over_batch, relative_errors, row_errors, terms, total
from ssd1b.training.prediction import Kind, noised, target

# B rows, C channels, H height, W width


def tensors(count: int, rows: int = 6) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(rows, 4, 3, 2, generator=generator) for _ in range(count)]


def test_the_sum_is_segminds_loss() -> None:
    student, teacher, noise, a, b, c, d = tensors(7)
    parts = terms(student, teacher, noise, {"x": a, "y": b}, {"x": c, "y": d})
    ours = over_batch(total(parts, Weights()), torch.ones(6, dtype=torch.bool), 6)
    theirs = (
        F.mse_loss(student, noise) + 0.5 * F.mse_loss(student, teacher) + 0.5 * (F.mse_loss(a, c) + F.mse_loss(b, d))
    )
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    assert set(parts) == {"task", "output", "feature/x", "feature/y"}


def test_errors_are_taken_in_float32() -> None:
    a, b = (tensor.bfloat16() for tensor in tensors(2))
    error_B = row_errors(a, b)
    assert error_B.dtype == torch.float32
    assert torch.equal(error_B, row_errors(a.float(), b.float()))


@pytest.mark.parametrize("cuts", [(6,), (1, 5), (2, 2, 2), (3, 1, 2)])
def test_the_loss_and_its_gradient_do_not_depend_on_the_spread(cuts: tuple[int, ...]) -> None:
    student, teacher, noise = tensors(3)
    weight = torch.tensor(1.3, requires_grad=True)
    sums = torch.zeros(())
    for s, t, n in zip(student.split(cuts), teacher.split(cuts), noise.split(cuts), strict=True):
        part = over_batch(total(terms(weight * s, t, n, {}, {}), Weights()), torch.ones(len(s), dtype=torch.bool), 6)
        part.backward()
        sums = sums + part.detach()
    whole_weight = torch.tensor(1.3, requires_grad=True)
    whole = total(terms(whole_weight * student, teacher, noise, {}, {}), Weights()).mean()
    whole.backward()
    assert sums.item() == pytest.approx(whole.item(), rel=1e-6)
    assert weight.grad is not None
    assert whole_weight.grad is not None
    assert weight.grad.item() == pytest.approx(whole_weight.grad.item(), rel=1e-5)


def test_padding_counts_for_nothing_even_if_not_finite() -> None:
    rows_B = torch.tensor([1.0, 3.0, float("nan")], requires_grad=True)
    loss = over_batch(rows_B, torch.tensor([True, True, False]), 4)
    loss.backward()
    assert loss.item() == 1.0
    assert rows_B.grad is not None
    assert rows_B.grad.tolist() == [0.25, 0.25, 0.0]


def test_min_snr_weighs_both_noise_errors_and_keeps_the_features() -> None:
    alphas = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").alphas_cumprod
    weight_B = min_snr(alphas[torch.tensor([0, 500, 999])], gamma=5.0)
    snr = [(alphas[t] / (1 - alphas[t])).item() for t in (0, 500, 999)]
    assert weight_B.tolist() == pytest.approx([min(s, 5.0) / s for s in snr], rel=1e-5)
    assert weight_B[0] < 1 == weight_B[1] == weight_B[2], "only clear pictures count for less"
    student, teacher, noise, a, b = tensors(5, rows=3)
    plain = terms(student, teacher, noise, {"x": a}, {"x": b})
    weighed = terms(student, teacher, noise, {"x": a}, {"x": b}, weight_B)
    assert torch.allclose(weighed["task"], plain["task"] * weight_B)
    assert torch.allclose(weighed["output"], plain["output"] * weight_B)
    assert torch.equal(weighed["feature/x"], plain["feature/x"])


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_min_snr_weighs_an_error_as_what_it_does_to_the_picture(kind: Kind) -> None:
    """The paper's weight is of an error of the picture: the same, whichever way the UNet says it."""
    alphas = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").alphas_cumprod.double()
    timestep_B = torch.tensor([3, 200, 500, 700, 850, 998])
    a_B = alphas[timestep_B]
    clean, noise, wrong = (tensor.double() for tensor in tensors(3))
    noisy = noised(clean, noise, a_B)
    said = target(kind, clean, noise, a_B) + wrong
    a = a_B[:, None, None, None]
    if kind == "epsilon":
        picture = (noisy - (1 - a).sqrt() * said) / a.sqrt()
    else:
        picture = a.sqrt() * noisy - (1 - a).sqrt() * said
    of_picture_B = (picture - clean).pow(2).flatten(1).mean(1)
    expected_B = torch.minimum(a_B / (1 - a_B), torch.tensor(5.0, dtype=torch.float64)) * of_picture_B
    ours_B = min_snr(a_B, 5.0, kind) * row_errors(said, target(kind, clean, noise, a_B))
    assert torch.allclose(ours_B, expected_B.float(), rtol=1e-4)


def test_min_snr_has_a_value_where_a_latent_is_noise_alone_or_clean() -> None:
    assert min_snr(torch.tensor([0.0, 1.0]), 5.0, "epsilon").tolist() == [1.0, 0.0]
    assert min_snr(torch.tensor([0.0, 1.0]), 5.0, "v_prediction").tolist() == [0.0, 0.0]


def test_normalised_terms_do_not_depend_on_a_features_scale() -> None:
    ours, theirs = tensors(2)
    expected_B = [((a - b).norm() ** 2 / b.norm() ** 2).item() for a, b in zip(ours, theirs, strict=True)]
    for scale in (1e-3, 1.0, 300.0):
        assert relative_errors(scale * ours, scale * theirs).tolist() == pytest.approx(expected_B, rel=1e-5)
    assert relative_errors(torch.zeros_like(theirs), theirs).tolist() == pytest.approx([1.0] * 6)
    student, teacher, noise = tensors(3)
    features = ({"big": 100 * ours, "small": ours}, {"big": 100 * theirs, "small": theirs})
    plain = terms(student, teacher, noise, *features)
    even = terms(student, teacher, noise, *features, normalise=True)
    assert plain["feature/big"].sum() > 9000 * plain["feature/small"].sum()
    assert torch.allclose(even["feature/big"], even["feature/small"], rtol=1e-5)
    assert torch.equal(even["task"], plain["task"])
    assert torch.equal(even["output"], plain["output"])


def test_a_teachers_feature_of_zeros_does_not_make_the_loss_infinite() -> None:
    ours, theirs = tensors(1)[0], torch.zeros(6, 4, 3, 2)
    assert relative_errors(ours, theirs).isfinite().all()


def test_without_a_teacher_the_loss_is_the_task_alone() -> None:
    student, noise = tensors(2)
    parts = terms(student, None, noise, {}, {})
    assert set(parts) == {"task"}
    assert total(parts, Weights(task=2.0)).mean().item() == pytest.approx(2 * F.mse_loss(student, noise).item())
