"""The champion opened from a real registry, on the shipped nano family: bundle or folder, adapters, wrong ones."""

import asyncio
import io
import json
import logging
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from registry import adapter_folder, register_lora, register_nano

from serve.adapters.catalogue import Adapters
from serve.answer import Event, Generation, Preview
from serve.champion import Champion
from serve.errors import RequestError
from serve.model import Fixed
from serve.pictures import Finishing
from serve.registered import Registered
from serve.replica import Replica
from serve.request import GenerationRequest, LoraChoice, Start
from ssd1b import tracking
from ssd1b.engines.bundle import Bundle
from ssd1b.home import home
from ssd1b.models.files import NANO
from ssd1b.sizes import NANO_BUCKETS, SDXL_BUCKETS, Size

BARE = Finishing(parameters=False)
"""Files that are equal where the pictures are."""


def open_champion(model: str) -> tuple[Champion, Adapters]:
    registered = Registered(model)
    champion, adapters = registered.open(registered.look(None).champion)
    assert isinstance(champion, Champion)
    return champion, adapters


def draw(replica: Replica, **fields: object) -> Generation | RequestError:
    request = GenerationRequest(**({"prompt": "a red apple", "seed": 1, "steps": 2} | fields))  # type: ignore[arg-type]
    return asyncio.run(replica.generate(request))


@pytest.mark.usefixtures("home")
def test_no_champion_says_what_makes_one() -> None:
    with pytest.raises(ValueError, match=r"nothing to serve: .*jobs\.promote.*make demo"):
        Registered("ssd1b-nano").look(None)


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
    assert registry.all() == {"ink": "models:/ssd1b-nano-lora-ink/1"}

    replica = Replica(Fixed(lambda: (champion, registry)), 4, BARE)
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
    replica = Replica(Registered("ssd1b-nano"), 4, BARE)
    refused = draw(replica, loras=(LoraChoice(name="huge"),))
    assert isinstance(refused, RequestError)
    assert "rank 64" in refused.message
    assert isinstance(draw(replica), Generation)


@pytest.mark.usefixtures("home")
def test_a_picture_does_not_depend_on_its_neighbours(tmp_path: Path) -> None:
    register_nano()
    register_lora("ink", adapter_folder(tmp_path / "ink"))
    replica = Replica(Registered("ssd1b-nano"), 4, BARE)
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
    replica = Replica(Registered("ssd1b-nano"), 4, BARE)
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


def psnr(one: bytes, other: bytes) -> float:
    """Peak signal to noise ratio of two pictures, decibels; equal ones have 99."""
    first, second = (np.asarray(Image.open(io.BytesIO(data)), np.float64) for data in (one, other))
    return 10 * float(np.log10(255**2 / max(((first - second) ** 2).mean(), 1e-5)))


STRANGERS: list[dict[str, object]] = [
    {"prompt": "a tiger", "seed": 2, "steps": 9, "sampler": "ddim", "guidance": 1},
    {"prompt": "a fish", "seed": 3, "steps": 5, "sampler": "dpmpp_2m", "negative_prompt": "grey"},
    {"prompt": "a rabbit", "seed": 4, "steps": 14, "sampler": "euler_a", "loras": (LoraChoice(name="ink", scale=4),)},
    {"prompt": "a tree", "seed": 5, "steps": 3, "loras": (LoraChoice(name="chalk", scale=-2),)},
    {"prompt": "a red apple", "seed": 1, "steps": 7, "guidance": 9, "rescale": 0.7},
    {"prompt": "a carrot", "seed": 6, "steps": 20, "sampler": "heun", "priority": "batch"},
    {"prompt": "a boat", "seed": 7, "steps": 11, "loras": (LoraChoice(name="ink"), LoraChoice(name="chalk"))},
]


@pytest.mark.usefixtures("home")
def test_the_same_picture_alone_and_among_seven_strangers(tmp_path: Path) -> None:
    """Other steps, samplers, guidance and adapters beside it change a picture by rounding only."""
    register_nano()
    for seed, name in enumerate(("ink", "chalk")):
        register_lora(name, adapter_folder(tmp_path / name, seed=seed))
    replica = Replica(Registered("ssd1b-nano"), 8, BARE)
    mine = [
        GenerationRequest(prompt="a red apple", seed=1, steps=12),
        GenerationRequest(prompt="a red apple", seed=1, steps=12, loras=(LoraChoice(name="ink", scale=3),)),
    ]
    strangers = [GenerationRequest(**fields) for fields in STRANGERS]  # type: ignore[arg-type]
    assert len(strangers) == 7

    async def together(request: GenerationRequest) -> list[Generation | RequestError]:
        return await asyncio.gather(*map(replica.generate, (request, *strangers)))

    for request in mine:
        alone, (among, *others) = asyncio.run(replica.generate(request)), asyncio.run(together(request))
        assert all(isinstance(other, Generation) for other in others), others
        assert isinstance(alone, Generation)
        assert isinstance(among, Generation)
        ratio = psnr(alone.pictures[0].data, among.pictures[0].data)
        print(f"alone and among seven strangers: {ratio:.1f} dB")
        assert ratio >= 40
        assert isinstance(others[0], Generation)
        assert psnr(alone.pictures[0].data, others[0].pictures[0].data) < 25


@pytest.mark.usefixtures("home")
def test_a_picture_to_start_from_a_mask_and_previews() -> None:
    register_nano()
    replica = Replica(Registered("ssd1b-nano"), 4, BARE)
    drawn = draw(replica, steps=8)
    assert isinstance(drawn, Generation)
    picture = drawn.pictures[0].data

    def again(**fields: object) -> bytes:
        start = Start(picture=picture, **fields)  # type: ignore[arg-type]
        made = draw(replica, prompt="a blue fish", steps=10, start=start)
        assert isinstance(made, Generation), made
        assert made.size == Size(128, 128)
        return made.pictures[0].data

    little, much = again(strength=0.2), again(strength=0.9)
    assert psnr(picture, little) > psnr(picture, much) + 3  # the less is drawn anew, the nearer it stays

    left = Image.new("L", (128, 128))
    left.paste(255, (0, 0, 64, 128))
    buffer = io.BytesIO()
    left.save(buffer, "PNG")
    inpainted = again(strength=1.0, mask=buffer.getvalue())
    before, after = (np.asarray(Image.open(io.BytesIO(data)), np.float64) for data in (picture, inpainted))
    changed = np.abs(before - after).mean((0, 2))
    assert changed[:56].mean() > 3 * changed[72:].mean()

    refused = draw(replica, steps=4, start=Start(picture=picture, strength=0.1))
    assert isinstance(refused, RequestError)
    assert "strength 0.1 of 4 steps" in refused.message

    async def events() -> list[Event]:
        request = GenerationRequest(prompt="a red apple", seed=1, steps=8, previews=3)
        return [event async for event in replica.draw(request)]

    told = asyncio.run(events())
    previews = [event.data for event in told if isinstance(event, Preview)]
    assert len(previews) == 3
    assert isinstance(told[-1], Generation)
    near = [psnr(told[-1].pictures[0].data, preview) for preview in previews]
    assert near[0] < near[-1]  # they come nearer to the picture
    assert near[-1] > psnr(much, previews[-1]) + 1  # than to a stranger


@pytest.mark.usefixtures("home")
def test_several_adapters_of_one_request_add_up(tmp_path: Path) -> None:
    """A and B at their weights are the one adapter that holds both; more rank than a slot has is refused by name."""
    register_nano()
    for seed, name in enumerate(("ink", "chalk")):
        register_lora(name, adapter_folder(tmp_path / name, seed=seed))
    replica = Replica(Registered("ssd1b-nano", rank=8), 4, BARE)

    def worn(**scales: float) -> bytes:
        made = draw(replica, steps=3, loras=tuple(LoraChoice(name=name, scale=scale) for name, scale in scales.items()))
        assert isinstance(made, Generation), made
        return made.pictures[0].data

    ink, both = worn(ink=3), worn(ink=3, chalk=2)
    assert psnr(ink, both) < 40
    assert both == worn(chalk=2, ink=3)
    assert close(worn(ink=3, chalk=0), ink)
    assert close(worn(ink=3, chalk=1e-9), ink)  # two in a slot, one of them next to nothing

    small = Replica(Registered("ssd1b-nano", rank=4), 4, BARE)
    refused = draw(small, loras=(LoraChoice(name="ink"), LoraChoice(name="chalk")))
    assert isinstance(refused, RequestError)
    assert "together do not fit this model" in refused.message
    assert "rank 8, this engine holds up to 4" in refused.message


@pytest.mark.usefixtures("home")
def test_a_folder_of_adapters_beside_the_registry(tmp_path: Path) -> None:
    register_nano()
    register_lora("ink", adapter_folder(tmp_path / "registered" / "ink"))
    adapter_folder(tmp_path / "folder" / "chalk", seed=1)
    replica = Replica(Registered("ssd1b-nano", adapters=tmp_path / "folder"), 4, BARE)
    assert asyncio.run(replica.offer()).loras == ("chalk", "ink")
    pictures = {
        made.pictures[0].data
        for name in ("ink", "chalk")
        if isinstance(made := draw(replica, loras=(LoraChoice(name=name, scale=4),)), Generation)
    }
    assert len(pictures) == 2


@pytest.mark.slow  # a measurement, which other work on the machine disturbs
@pytest.mark.usefixtures("home")
def test_a_swap_holds_up_the_steps_of_others_by_less_than_a_step(tmp_path: Path) -> None:
    """Steps are made one after the other while adapters are put into slots again and again."""
    register_nano()
    champion, _ = open_champion("ssd1b-nano")
    adapters = [champion.read_adapter(adapter_folder(tmp_path / f"{n}", seed=n), f"{n}") for n in range(4)]
    request = GenerationRequest(prompt="a red apple", seed=1, steps=400, n=4)
    rows = champion.begin(request, Size(128, 128), 0, 1.0)

    def steps(count: int) -> list[float]:
        times = []
        for _ in range(count):
            began = time.perf_counter()
            champion.advance(rows)
            times.append(time.perf_counter() - began)
        return times

    steps(3)
    quiet = steps(20)
    began = time.perf_counter()
    champion.load_adapter(1, [(adapters[0], 1.0)])
    idle = time.perf_counter() - began
    swaps: list[float] = []
    going = threading.Event()
    going.set()

    def swap() -> None:
        while going.is_set():
            began = time.perf_counter()
            champion.load_adapter(1 + len(swaps) % 4, [(adapters[len(swaps) % 4], 1.0)])
            swaps.append(time.perf_counter() - began)
            time.sleep(0.05)

    swapper = threading.Thread(target=swap)
    swapper.start()
    busy = steps(20)
    going.clear()
    swapper.join()
    step, among = sorted(quiet)[10], sorted(busy)[10]
    waited = sorted(swaps)[len(swaps) // 2]
    print(f"a step of 4 pictures: {step * 1e3:.0f} ms alone, {among * 1e3:.0f} ms among {len(swaps)} swaps")
    print(f"a swap: {idle * 1e3:.0f} ms of work, {waited * 1e3:.0f} ms with the wait for the end of a step")
    assert len(swaps) >= 5
    assert idle < step
    assert among < 2 * step
