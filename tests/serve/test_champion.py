"""The champion opened from a real registry, on the shipped nano family: bundle or folder, adapters, wrong ones."""

import asyncio
import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from registry import adapter_folder, register_lora, register_nano

from serve.answer import Generation
from serve.champion import open_champion, require_champion
from serve.errors import RequestError
from serve.replica import Replica
from serve.request import GenerationRequest, LoraChoice
from ssd1b import tracking
from ssd1b.engines.bundle import Bundle
from ssd1b.home import home
from ssd1b.models.files import NANO
from ssd1b.sizes import NANO_BUCKETS, SDXL_BUCKETS, Size


def draw(replica: Replica, **fields: object) -> Generation | RequestError:
    request = GenerationRequest(**({"prompt": "a red apple", "seed": 1, "steps": 2} | fields))  # type: ignore[arg-type]
    return asyncio.run(replica.generate(request))


@pytest.mark.usefixtures("home")
def test_no_champion_says_what_makes_one() -> None:
    with pytest.raises(ValueError, match=r"nothing to serve: .*jobs\.promote.*make demo"):
        require_champion("ssd1b-nano")


@pytest.mark.usefixtures("home")
def test_a_champion_without_a_bundle_runs_on_torch_and_says_so(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    version = register_nano()
    register_lora("ink", adapter_folder(tmp_path / "ink"))
    logging.getLogger("ray.serve").propagate = True
    with caplog.at_level(logging.WARNING, "ray.serve"):
        champion, registry = open_champion("ssd1b-nano")
    assert "has no engine bundle" in caplog.text
    assert (champion.offer.version, champion.offer.sizes, champion.offer.prompt_tokens) == (
        version,
        (Size(128, 128),),
        120,
    )
    assert registry.names() == ("ink",)
    assert registry.find("inc") is None
    assert registry.find("../ink") is None

    replica = Replica(lambda: (champion, registry), 4)
    plain, again, inked = draw(replica), draw(replica), draw(replica, loras=(LoraChoice(name="ink", scale=4),))
    assert isinstance(plain, Generation)
    assert isinstance(inked, Generation)
    assert plain == again
    assert plain.pictures[0].data != inked.pictures[0].data
    muted = draw(replica, loras=(LoraChoice(name="ink", scale=0),))
    assert isinstance(muted, Generation)
    assert muted.pictures[0].data == plain.pictures[0].data  # scale 0 is the plain model

    refused = draw(replica, prompt="apple " * 121)
    assert isinstance(refused, RequestError)
    assert "121 tokens; ssd1b-nano reads at most 120" in refused.message
    assert (refused.status, refused.param) == (400, "prompt")
    refused = draw(replica, loras=(LoraChoice(name="inc"),))
    assert isinstance(refused, RequestError)
    assert "did you mean" not in refused.message
    assert "offered: ink" in refused.message


@pytest.mark.usefixtures("home")
def test_the_bundle_that_the_champions_tag_names_is_what_runs(caplog: pytest.LogCaptureFixture) -> None:
    bundle = register_nano("ssd1b-nano-bundle")  # a plain folder opens like a bundle, on torch
    tracking.tag("ssd1b-nano", register_nano(), "bundle", f"models:/ssd1b-nano-bundle/{bundle}")
    with caplog.at_level(logging.INFO, "ray.serve"):
        open_champion("ssd1b-nano")
    assert "has no engine bundle" not in caplog.text
    assert (home() / "downloads" / "ssd1b-nano-bundle").is_dir()
    assert not (home() / "downloads" / "ssd1b-nano").exists()


def test_sizes_are_the_buckets_of_the_model(tmp_path: Path) -> None:
    for backend in ("openvino", "torch"):
        assert Bundle(NANO, {}, backend).sizes == NANO_BUCKETS
    for side, sizes in ((128, SDXL_BUCKETS), (32, (Size(256, 256),))):
        (tmp_path / "unet").mkdir(exist_ok=True)
        (tmp_path / "unet" / "config.json").write_text(json.dumps({"sample_size": side}))
        assert Bundle(tmp_path, {}, "torch").sizes == sizes


@pytest.mark.usefixtures("home")
def test_an_adapter_of_too_great_a_rank_is_refused_and_the_replica_goes_on(tmp_path: Path) -> None:
    register_nano()
    register_lora("huge", adapter_folder(tmp_path / "huge", rank=64))
    replica = Replica(lambda: open_champion("ssd1b-nano"), 4)
    refused = draw(replica, loras=(LoraChoice(name="huge"),))
    assert isinstance(refused, RequestError)
    assert "rank 64" in refused.message
    assert isinstance(draw(replica), Generation)


@pytest.mark.usefixtures("home")
def test_a_picture_does_not_depend_on_its_neighbours(tmp_path: Path) -> None:
    register_nano()
    register_lora("ink", adapter_folder(tmp_path / "ink"))
    replica = Replica(lambda: open_champion("ssd1b-nano"), 4)
    requests = [
        GenerationRequest(prompt="a red apple", seed=1, steps=3),
        GenerationRequest(prompt="a tiger", seed=2, steps=2, sampler="ddim", guidance=1),
        GenerationRequest(prompt="a tiger", seed=2, steps=4, sampler="dpmpp_2m", negative_prompt="grey"),
        GenerationRequest(prompt="a red apple", seed=1, steps=3, loras=(LoraChoice(name="ink", scale=4),)),
    ]

    async def together() -> list[Generation | RequestError]:
        return await asyncio.gather(*map(replica.generate, requests))

    for alone, made in zip(
        [asyncio.run(replica.generate(one)) for one in requests], asyncio.run(together()), strict=True
    ):
        assert isinstance(alone, Generation)
        assert isinstance(made, Generation)
        assert close(alone.pictures[0].data, made.pictures[0].data)


@pytest.mark.usefixtures("home")
def test_prompts_of_unlike_length_and_weight_share_a_replica() -> None:
    """Long and short together are as each alone; a weight counts, and one that cannot be is refused by name."""
    register_nano()
    replica = Replica(lambda: open_champion("ssd1b-nano"), 4)
    requests = [GenerationRequest(prompt=prompt, seed=1, steps=2) for prompt in ("a red apple", "a red apple " * 20)]

    async def together() -> list[Generation | RequestError]:
        return await asyncio.gather(*map(replica.generate, requests))

    alone, made = [asyncio.run(replica.generate(one)) for one in requests], asyncio.run(together())
    assert made == alone
    plain, long = made
    assert isinstance(plain, Generation)
    assert isinstance(long, Generation)
    assert (plain.prompt_tokens, long.prompt_tokens) == (3, 60)

    weighted, same = draw(replica, prompt="a (red:1.8) apple"), draw(replica, prompt="a (red:1.0) apple")
    assert isinstance(weighted, Generation)
    assert weighted.prompt_tokens == 3
    assert weighted.pictures != plain.pictures
    assert same == plain
    for param in ("prompt", "negative_prompt"):
        refused = draw(replica, **{param: "a (red:99) apple"})
        assert isinstance(refused, RequestError)
        assert (refused.status, refused.param, refused.code) == (400, param, "invalid_value")
        assert "weight 99 of 'red' is further from 0 than 10" in refused.message


def close(one: bytes, other: bytes) -> bool:
    """Equal but for rounding: another batch size may order a sum differently."""
    first, second = (np.asarray(Image.open(io.BytesIO(data)), np.int16) for data in (one, other))
    return bool(np.abs(first - second).max() <= 2)
