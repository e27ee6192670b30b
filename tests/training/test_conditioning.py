"""From stored rows to what the UNets are asked, for both lines of the family."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from ssd1b.elastic.randomness import draw
from ssd1b.models.files import load_pipeline
from ssd1b.sampling.prompts import Prompts
from ssd1b.training.conditioning import Conditioning
from tests.training.alone import write_sd_model
from tests.training.synthetic import sample_id

CPU = torch.device("cpu")
SIDE = 16


def rows(ids: list[int], epoch: int = 0, captions: tuple[str, ...] = ("a red apple",)) -> dict[str, Any]:
    """Return rows as the feed deals them: latents that depend on the sample, sizes that are all unlike."""
    random = np.random.default_rng(0)
    means = {i: random.standard_normal((4, SIDE, SIDE)).astype(np.float16) for i in sorted(ids)}
    numbers = {"original_height": 11, "original_width": 12, "crop_top": 13, "crop_left": 14}
    return {
        "sample_id": ids,
        "mean": [means[i].tobytes() for i in ids],
        "std": [np.full((4, SIDE, SIDE), 0.1, np.float16).tobytes() for _ in ids],
        **{name: [value] * len(ids) for name, value in numbers.items()},
        "target_height": [8 * SIDE] * len(ids),
        "target_width": [8 * SIDE] * len(ids),
        "captions": [list(captions)] * len(ids),
        "epoch": [epoch] * len(ids),
        "real": [True] * len(ids),
    }


IDS = [sample_id(i) for i in range(6)]


@pytest.fixture(scope="module")
def xl() -> Conditioning:
    return Conditioning("nano", CPU)


@pytest.fixture(scope="module")
def sd(tmp_path_factory: pytest.TempPathFactory) -> Conditioning:
    folder = tmp_path_factory.mktemp("sd") / "base"
    return Conditioning(write_sd_model(folder, 1, prediction_type="v_prediction"), CPU)


def test_rows_become_what_diffusers_would_make_of_them(xl: Conditioning) -> None:
    given = rows(IDS)
    batch = xl.batch(given, seed=5)
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    for i, one in enumerate(IDS):
        drawn = draw(5, 0, one, captions=["a red apple"], shape=(4, SIDE, SIDE))
        mean = torch.from_numpy(np.frombuffer(given["mean"][i], np.float16).reshape(4, SIDE, SIDE).astype(np.float32))
        clean = mean + 0.1 * torch.from_numpy(drawn.posterior_CHW)
        noise = torch.from_numpy(drawn.noise_CHW)
        noisy = scheduler.add_noise(clean[None], noise[None], torch.tensor([drawn.timestep]))
        assert torch.allclose(batch.noisy_BCHW[i], noisy[0], atol=1e-4)
        assert torch.equal(batch.noise_BCHW[i], noise)
        assert batch.timestep_B[i] == drawn.timestep
    assert batch.target_BCHW is batch.noise_BCHW
    assert batch.kind == "epsilon"


def test_text_towers_in_half_precision_say_nearly_the_same_and_the_rest_exactly(xl: Conditioning) -> None:
    half = Conditioning("nano", CPU, torch.bfloat16)
    assert {parameter.dtype for tower in half.prompts.towers for parameter in tower.parameters()} == {torch.bfloat16}
    ours, theirs = half.batch(rows(IDS), seed=5), xl.batch(rows(IDS), seed=5)
    for name in ("text_BTD", "pooled_BE"):
        one, other = getattr(ours, name), getattr(theirs, name)
        assert one.dtype == torch.float32
        assert 0 < (one - other).abs().max() < 0.05 * other.abs().max()
    for name in ("noisy_BCHW", "target_BCHW", "timestep_B", "time_ids_B6"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))


def test_micro_conditioning_is_in_the_order_of_diffusers(xl: Conditioning) -> None:
    pipeline = load_pipeline("nano")
    expected = pipeline._get_add_time_ids(
        original_size=(11, 12), crops_coords_top_left=(13, 14), target_size=(8 * SIDE, 8 * SIDE), dtype=torch.float32,
        text_encoder_projection_dim=pipeline.text_encoder_2.config.projection_dim,
    )  # fmt: skip
    assert torch.equal(xl.batch(rows(IDS[:2]), seed=0).time_ids_B6, expected.expand(2, 6))


def test_a_sample_is_drawn_alike_in_any_company(xl: Conditioning) -> None:
    options: dict[str, Any] = {"seed": 5, "drop_share": 0.5, "noise_offset": 0.1}
    together = xl.batch(rows(IDS), **options)
    for i in (0, 3, 5):
        alone = xl.batch(rows(IDS[i : i + 1]), **options)
        other = xl.batch(rows([IDS[i], IDS[1]]), **options)
        for name in ("noise_BCHW", "timestep_B", "target_BCHW"):
            assert torch.equal(getattr(together, name)[i], getattr(alone, name)[0])
            assert torch.equal(getattr(other, name)[0], getattr(alone, name)[0])
        assert torch.allclose(together.text_BTD[i], alone.text_BTD[0], atol=1e-5)


def test_captions_are_dropped_anew_in_every_epoch(xl: Conditioning) -> None:
    def dropped(epoch: int) -> list[bool]:
        batch = xl.batch(rows(IDS, epoch), seed=5, drop_share=0.5)
        return [not text.any() for text in batch.text_BTD]

    found = [dropped(epoch) for epoch in range(8)]
    assert all(len({epoch[i] for epoch in found}) == 2 for i in range(len(IDS))), "each is kept and dropped by turns"
    assert dropped(0) == found[0]


def test_a_dropped_caption_is_what_serving_calls_no_prompt(xl: Conditioning, sd: Conditioning) -> None:
    for conditioning in (xl, sd):
        batch = conditioning.batch(rows(IDS), seed=5, drop_share=1.0)
        nothing = conditioning.prompts.unconditional()
        assert torch.allclose(batch.text_BTD, nothing.text_TD.expand_as(batch.text_BTD), atol=1e-5)
        assert torch.equal(batch.pooled_BE, nothing.pooled_E.expand_as(batch.pooled_BE))
    assert sd.batch(rows(IDS[:1]), seed=5, drop_share=1.0).text_BTD.any(), "the empty prompt is not zeros"


def test_the_sd15_line_is_asked_by_text_alone(xl: Conditioning, sd: Conditioning) -> None:
    batch = sd.batch(rows(IDS), seed=5)
    assert set(batch.ask()) == {"sample", "timestep", "encoder_hidden_states", "return_dict"}
    expected = Prompts(sd.prompts.tokenizers, sd.prompts.towers).encode(["a red apple"])[0]
    assert torch.allclose(batch.text_BTD, expected.expand_as(batch.text_BTD), atol=1e-5)
    assert set(xl.batch(rows(IDS), seed=5).ask()["added_cond_kwargs"]) == {"text_embeds", "time_ids"}


def test_velocity_is_the_target_where_the_base_predicts_it(sd: Conditioning) -> None:
    batch = sd.batch(rows(IDS), seed=5)
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    a = scheduler.alphas_cumprod[batch.timestep_B][:, None, None, None]
    clean = (batch.noisy_BCHW - (1 - a).sqrt() * batch.noise_BCHW) / a.sqrt()
    expected = scheduler.get_velocity(clean, batch.noise_BCHW, batch.timestep_B)
    assert batch.kind == "v_prediction"
    assert torch.allclose(batch.target_BCHW, expected, atol=1e-3)


def test_a_noise_offset_shifts_the_noise_of_whole_channels(xl: Conditioning) -> None:
    plain, shifted = (xl.batch(rows(IDS), seed=5, noise_offset=offset) for offset in (0.0, 0.1))
    shift = shifted.noise_BCHW - plain.noise_BCHW
    drawn = [draw(5, 0, one, captions=["a red apple"], shape=(4, SIDE, SIDE)).offset_C for one in IDS]
    expected = 0.1 * torch.from_numpy(np.stack(drawn))[:, :, None, None]
    assert torch.allclose(shift, expected.expand_as(shift), atol=1e-6)
    assert torch.equal(shifted.target_BCHW, shifted.noise_BCHW), "the target has the shift too"
    assert torch.equal(shifted.timestep_B, plain.timestep_B)
    many = np.stack([draw(5, 0, i, captions=[], shape=(4, 1, 1)).offset_C for i in range(2000)])
    assert abs(many.mean()) < 0.05
    assert abs(many.std() - 1) < 0.05
    assert np.abs(np.corrcoef(many.T) - np.eye(4)).max() < 0.1


def test_a_base_that_predicts_pictures_is_refused(tmp_path: Path) -> None:
    base = write_sd_model(tmp_path / "base", 1, prediction_type="sample")
    with pytest.raises(ValueError, match=r"predicts 'sample': .* models that predict epsilon or v_prediction"):
        Conditioning(base, CPU)


def test_a_base_without_a_noise_schedule_is_refused(tmp_path: Path) -> None:
    base = Path(write_sd_model(tmp_path / "base", 1))
    FlowMatchEulerDiscreteScheduler().save_pretrained(base / "scheduler")
    with pytest.raises(ValueError, match="has a FlowMatchEulerDiscreteScheduler, which has no DDPM's noise schedule"):
        Conditioning(str(base), CPU)
