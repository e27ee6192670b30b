"""What a UNet predicts, and how one kind of prediction becomes another.

A noisy latent is x_t = sqrt(a) x_0 + sqrt(1 - a) e, with a the share of the picture's variance at timestep t (DDPM's
alpha bar, arXiv 2006.11239, equation 4). A UNet predicts the noise e, or the velocity v = sqrt(a) e - sqrt(1 - a) x_0
(arXiv 2202.00512, section 4). Both say the same of a latent: e = sqrt(a) v + sqrt(1 - a) x_t.
"""

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from ssd1b.models.places import SingleFile, read_json
from ssd1b.models.sources import placed, resolve

# B batch rows, C latent channels, H latent height, W latent width

Kind: TypeAlias = Literal["epsilon", "v_prediction"]
"""The names that schedulers' configs have for the two."""

SCHEDULE = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")
"""What of a scheduler's config decides how noisy a timestep is; with rescale_betas_zero_snr, which older ones lack."""


def column(a_B: Tensor) -> Tensor:
    """Return one number per row so that it multiplies latents, shape (B, 1, 1, 1)."""
    return a_B[:, None, None, None]


def noised(clean_BCHW: Tensor, noise_BCHW: Tensor, a_B: Tensor) -> Tensor:
    """Return the noisy latents x_t, shape (B, C, H, W)."""
    a = column(a_B)
    return a.sqrt() * clean_BCHW + (1 - a).sqrt() * noise_BCHW


def target(kind: Kind, clean_BCHW: Tensor, noise_BCHW: Tensor, a_B: Tensor) -> Tensor:
    """Return what a UNet of this kind should predict, shape (B, C, H, W)."""
    if kind == "epsilon":
        return noise_BCHW
    a = column(a_B)
    return a.sqrt() * noise_BCHW - (1 - a).sqrt() * clean_BCHW


def converted(predicted_BCHW: Tensor, noisy_BCHW: Tensor, a_B: Tensor, *, said: Kind, wanted: Kind) -> Tensor:
    """Return a prediction of one kind as the other says it, float32; of the same kind it is returned as it is.

    From noise to velocity divides by sqrt(a): where a latent is noise alone (a = 0) the noise says nothing of the
    picture. `check_teacher` refuses such schedules.
    """
    if said == wanted:
        return predicted_BCHW
    a, predicted_BCHW = column(a_B), predicted_BCHW.float()
    if wanted == "epsilon":
        return a.sqrt() * predicted_BCHW + (1 - a).sqrt() * noisy_BCHW
    return (predicted_BCHW - (1 - a).sqrt() * noisy_BCHW) / a.sqrt()


def kind_of(config: Mapping[str, Any], source: str) -> Kind:
    """Return what a source's scheduler config says that its UNet predicts.

    Raises:
        ValueError: neither noise nor velocity.
    """
    kind = config.get("prediction_type", "epsilon")
    if kind not in get_args(Kind):
        raise ValueError(
            f"{source} predicts {kind!r}: distillation here is of models that predict {' or '.join(get_args(Kind))}"
        )
    return kind  # type: ignore[no-any-return]


def scheduler_config(source: str) -> dict[str, Any]:
    """Return what a source says of its noise schedule; {} where it says nothing, as the file of a UNet alone."""
    place = placed(resolve(source)[0], (), torch.float32)
    if isinstance(place, SingleFile):
        return dict(place.schedule)
    folder = place.folder("scheduler")
    return read_json(folder / "scheduler_config.json") if folder else {}


def check_teacher(teacher: str, base: str) -> Kind:
    """Return what a teacher predicts. One that says nothing of its schedule is taken to be as the base.

    Raises:
        ValueError: the teacher learned another noise schedule than the base, or its answers cannot be converted.
    """
    theirs, ours = scheduler_config(teacher), scheduler_config(base)
    wanted = kind_of(ours, base)
    if not theirs:
        return wanted
    unlike = [name for name in SCHEDULE if name in theirs and name in ours and theirs[name] != ours[name]]
    zero = [bool(config.get("rescale_betas_zero_snr")) for config in (theirs, ours)]
    unlike += ["rescale_betas_zero_snr"] if zero[0] != zero[1] else []
    if unlike:
        told = ", ".join(f"{name} {theirs.get(name)!r} where the base has {ours.get(name)!r}" for name in unlike)
        raise ValueError(
            f"the teacher {teacher} learned another noise schedule than the base {base}: {told}; at one timestep the "
            f"two expect unlike latents, so give a teacher of the base's schedule"
        )
    said = kind_of(theirs, teacher)
    if zero[1] and (said, wanted) == ("epsilon", "v_prediction"):
        raise ValueError(
            f"the teacher {teacher} predicts noise and the base {base} velocity, under a schedule that ends in noise "
            f"alone: there the one cannot be told from the other, so give a teacher that predicts velocity"
        )
    return said
