"""The parts of the nano family: what each of them promises the others."""

from pathlib import Path

import pytest
import torch

from ssd1b.family.start import quiet_start
from ssd1b.family.table import new_unet
from ssd1b.models.files import low_rank_delta, merge_delta
from ssd1b.pretraining.pictures import Pictures, read_pictures
from ssd1b.pretraining.text import new_towers, train_tokenizer, write_vocabulary
from ssd1b.pretraining.unet import alphas_cumprod, encode_text
from ssd1b.pretraining.vae import edge_loss, encode_mean, new_vae, random_crops, standardise
from ssd1b.recipes.pretrain import Optim, TextTraining, nano

TEXT = TextTraining(optim=Optim(steps=1, lr=1e-3), vocabulary=640, tokens=16, width=32, layers=(1, 2), embedding=24)


def some_pictures() -> Pictures:
    pixels = torch.randint(0, 255, (6, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Pictures(
        pixels_NCHW=pixels, captions=[["x"]] * 6, concepts=["c"] * 6, styles=["s"] * 6, backdrops=["white"] * 6
    )


def test_standardised_latents_are_unit_and_decode_to_the_same_picture() -> None:
    torch.manual_seed(0)
    vae, pictures = new_vae((8, 8, 8, 8)).eval(), some_pictures()
    with torch.no_grad():
        before = vae.decode(encode_mean(vae, pictures.pixels_NCHW)).sample
        standardise(vae, pictures)
        latents = encode_mean(vae, pictures.pixels_NCHW)
        after = vae.decode(latents).sample
    assert latents.mean((0, 2, 3)).abs().max() < 1e-4
    assert (latents.std((0, 2, 3)) - 1).abs().max() < 1e-3
    torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-3)


def test_crops_are_of_the_pictures_and_reproducible() -> None:
    pixels = some_pictures().pixels_NCHW
    first = random_crops(pixels, 5, 16, torch.Generator().manual_seed(3))
    assert first.shape == (5, 3, 16, 16)
    assert first.min() >= -1
    assert first.max() <= 1
    assert torch.equal(first, random_crops(pixels, 5, 16, torch.Generator().manual_seed(3)))
    assert not torch.equal(first, random_crops(pixels, 5, 16, torch.Generator().manual_seed(4)))


def test_edges_count_and_a_constant_shift_does_not() -> None:
    picture = torch.zeros(1, 1, 4, 4)
    edged = picture.clone()
    edged[..., 2:] = 1
    assert edge_loss(picture, picture + 0.5) == 0
    assert edge_loss(picture, edged) > 0


def test_the_tokenizer_keeps_frequent_words_whole_and_any_text_representable(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["a red apple, flat vector style"] * 5, 640, 16, tmp_path)
    written = {file: (tmp_path / file).read_bytes() for file in ("vocab.json", "merges.txt")}
    write_vocabulary(tokenizer, tmp_path / "again")
    assert {file: (tmp_path / "again" / file).read_bytes() for file in written} == written
    assert tokenizer.tokenize("a red apple") == ["a</w>", "red</w>", "apple</w>"]
    assert tokenizer.unk_token_id not in tokenizer("Ünïcode — 日本!").input_ids[1:-1]
    assert tokenizer("apple", padding="max_length").input_ids[0] == tokenizer.bos_token_id
    assert len(tokenizer("apple", padding="max_length").input_ids) == 16


def test_text_conditioning_has_sdxls_parts(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["an owl"], 640, 16, tmp_path)
    with torch.no_grad():
        text, pooled = encode_text(new_towers(TEXT, tokenizer), ["an owl", "owl"])
    assert text.shape == (2, 16, 2 * TEXT.width)
    assert pooled.shape == (2, TEXT.embedding)


def test_noise_schedule_is_sdxls() -> None:
    from diffusers import EulerDiscreteScheduler

    theirs = EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").alphas_cumprod
    torch.testing.assert_close(alphas_cumprod(), theirs, atol=1e-6, rtol=1e-5)


def test_a_quiet_start_predicts_zero_and_still_learns() -> None:
    unet = quiet_start(new_unet("nano-sdxl"))
    noise = torch.randn(1, 4, 16, 16)
    added = {"text_embeds": torch.randn(1, 128), "time_ids": torch.zeros(1, 6)}
    out = unet(noise, torch.tensor([10]), torch.randn(1, 32, 128), added_cond_kwargs=added).sample
    assert out.abs().max() == 0
    (out - noise).square().mean().backward()
    assert unet.conv_out.weight.grad.abs().max() > 0


def test_a_full_rank_delta_restores_the_expert(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(0)
    base = new_unet("nano-sdxl")
    expert = new_unet("nano-sdxl")
    expert.load_state_dict({name: value + 0.01 * torch.randn_like(value) for name, value in base.state_dict().items()})
    save_file(low_rank_delta(base, expert, rank=4096), tmp_path / "delta.safetensors")
    merge_delta(base, tmp_path / "delta.safetensors")
    for name, weight in base.named_parameters():
        torch.testing.assert_close(weight, dict(expert.named_parameters())[name], atol=1e-4, rtol=1e-2)


def test_a_delta_of_another_model_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(
        {"nowhere.weight.up": torch.zeros(2, 1), "nowhere.weight.down": torch.zeros(1, 2)}, tmp_path / "d.safetensors"
    )
    with pytest.raises(ValueError, match=r"changes nowhere\.weight, which this UNet does not have"):
        merge_delta(new_unet("nano-sdxl"), tmp_path / "d.safetensors")


def test_an_unknown_style_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no style \['oil painting'\].*'flat vector'"):
        read_pictures(styles=("oil painting",))


def test_the_recipe_trains_nothing_that_is_held_out() -> None:
    config = nano()
    for part in (config.base, *config.experts.values()):
        train = read_pictures(styles=part.styles, subgroups=part.subgroups)
        held = read_pictures(split="heldout", styles=part.styles, subgroups=part.subgroups)
        assert len(train) > 100
        assert held.concepts
        assert not set(train.concepts) & set(held.concepts)
