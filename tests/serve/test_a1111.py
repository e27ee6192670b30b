"""A1111's API: <lora:...> tokens, what is refused by name, pictures, progress and interrupt of one's own requests."""

import base64
import io
import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from accounts_at_hand import FewCredits
from fastapi.testclient import TestClient
from PIL import Image
from toy_front import ToyEngine, eventually, listening

from serve.dialects import a1111
from serve.dialects.samplers import A1111, a1111_name
from serve.dialects.samplers import a1111 as our_sampler
from serve.errors import RequestError
from serve.ingress import routes
from serve.request import LoraChoice
from serve.styles import Style
from ssd1b.sampling.tables import SAMPLERS

TXT, IMG = "/sdapi/v1/txt2img", "/sdapi/v1/img2img"


@pytest.fixture
def engine() -> ToyEngine:
    return ToyEngine()


@pytest.fixture
def http(engine: ToyEngine) -> Iterator[TestClient]:
    with TestClient(routes(engine, "toy", styles={"flat": Style("flat", "flat {prompt}", "grey")})) as client:
        yield client


def picture(mode: str = "RGB", side: int = 128) -> str:
    buffer = io.BytesIO()
    Image.new(mode, (side, side), 255 if mode == "L" else (200, 30, 30)).save(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode()


def request_of(**fields: Any) -> Any:
    body = a1111.read(json.dumps(fields).encode(), a1111.Txt2Img)
    return a1111.to_request(body)


@pytest.mark.parametrize(
    ("prompt", "text", "loras"),
    [
        ("a red apple", "a red apple", ()),
        ("a  red <b>apple</b>", "a  red <b>apple</b>", ()),
        ("a <lora:ink> apple", "a apple", (LoraChoice(name="ink"),)),
        ("apple <lora:ink:0.7>", "apple", (LoraChoice(name="ink", scale=0.7),)),
        ("<lora:ink:-1><lora:line art> x", "x", (LoraChoice(name="ink", scale=-1), LoraChoice(name="line art"))),
        ("<lora:ink><lora:ink:0.5> apple", "apple", (LoraChoice(name="ink", scale=1.5),)),
        ("apple <lora:ink:0.7:0.7>", "apple", (LoraChoice(name="ink", scale=0.7),)),
        ("(apple:1.3) <lora:ink:unet=0.5:te=0.5>", "(apple:1.3)", (LoraChoice(name="ink", scale=0.5),)),
    ],
)  # fmt: skip
def test_loras_in_the_prompt(prompt: str, text: str, loras: tuple[LoraChoice, ...]) -> None:
    assert a1111.without_loras(prompt) == (text, loras)


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("<lora:ink:much>", "no number"),
        ("<lora:ink:0.5:0.7>", "one weight here"),
        ("<lora:ink:9>", "from -4 to 4"),
        ("<lora:ink:nan>", "from -4 to 4|one weight"),
        ("<hypernet:ink:1>", "use <lora:name:weight>"),
    ],
)
def test_tokens_that_are_refused(prompt: str, says: str) -> None:
    with pytest.raises(RequestError, match=says) as info:
        request_of(prompt=prompt)
    assert info.value.param == "prompt"


@pytest.mark.parametrize(("name", "value"), [("enable_hr", True), ("restore_faces", True), ("tiling", True),
    ("script_name", "x/y/z"), ("alwayson_scripts", {"controlnet": {}}), ("subseed_strength", 0.1), ("eta", 0.5),
    ("refiner_checkpoint", "sdxl"), ("override_settings", {"CLIP_stop_at_last_layers": 2}), ("resize_mode", 2),
    ("inpainting_fill", 0), ("s_noise", 1.1)])  # fmt: skip
def test_what_would_change_the_picture_is_refused_by_name_and_with_the_fix(name: str, value: Any) -> None:
    with pytest.raises(RequestError, match=rf"{name}=.*is not offered: (leave|set)") as info:
        request_of(prompt="x", **{name: value})
    assert info.value.param == name


def test_what_is_off_or_says_where_files_go_is_taken() -> None:
    off = dict.fromkeys(a1111.REFUSED) | {"subseed_strength": 0, "seed_resize_from_h": -1, "override_settings": {}}
    kept = {"save_images": True, "send_images": True, "do_not_save_grid": True, "subseed": -1, "s_noise": 1.0}
    plain = request_of(prompt="x", seed=1)
    assert request_of(prompt="x", seed=1, **off, **kept) == plain
    assert (plain.steps, plain.guidance, plain.size, plain.n) == (50, 7.0, None, 1)


def test_batches_and_sizes() -> None:
    request = request_of(prompt="x", batch_size=2, n_iter=3, seed=4, width=192, height=64)
    assert request.seeds == (4, 5, 6, 7, 8, 9)
    assert str(request.size) == "192x64"
    with pytest.raises(RequestError, match="less than or equal to 4"):
        request_of(prompt="x", batch_size=5)
    assert str(request_of(prompt="x", width=128).size) == "128x128"
    with pytest.raises(RequestError, match="did you mean 'cfg_scale'"):
        request_of(prompt="x", cfg_scal=3)


@pytest.mark.parametrize(
    ("name", "scheduler", "ours"),
    [
        ("Euler", "Automatic", "euler"),
        ("Euler a", "Automatic", "euler_a"),
        ("DPM++ 2M", "Automatic", "dpmpp_2m_karras"),
        ("DPM++ 2M", "Karras", "dpmpp_2m_karras"),
        ("DPM++ 2M", "Uniform", "dpmpp_2m"),
        ("DPM++ 2M Karras", "Automatic", "dpmpp_2m_karras"),
        ("DPM++ SDE", "Karras", "dpmpp_sde_karras"),
        ("UniPC", "Automatic", "unipc"),
    ],
)
def test_samplers_and_schedulers(name: str, scheduler: str, ours: str) -> None:
    assert our_sampler(name, scheduler) == ours
    assert our_sampler(*a1111_name(ours)) == ours


def test_every_sampler_of_ours_has_a_name_there() -> None:
    assert {our_sampler(*a1111_name(name)) for name in SAMPLERS} == set(SAMPLERS)
    assert {our_sampler(name, "Automatic") for name in A1111} <= set(SAMPLERS)
    with pytest.raises(RequestError, match="has no Karras levels"):
        our_sampler("Euler", "Karras")
    with pytest.raises(RequestError, match="offered: Euler, Euler a"):
        our_sampler("PLMS", "Automatic")
    with pytest.raises(RequestError, match="scheduler 'Exponential' is not offered"):
        our_sampler("Euler", "Exponential")


def test_pictures_and_what_is_told_of_them(http: TestClient, engine: ToyEngine) -> None:
    fields = {"prompt": "apple <lora:ink:0.5>", "seed": 3, "batch_size": 2, "steps": 4, "styles": ["flat"]}
    answer = http.post(TXT, json=fields).json()
    assert [base64.b64decode(one)[:4] for one in answer["images"]] == [b"\x89PNG"] * 2
    assert answer["parameters"]["prompt"] == fields["prompt"]
    info = json.loads(answer["info"])
    assert (info["seed"], info["all_seeds"], info["sampler_name"], info["steps"]) == (3, [3, 4], "Euler", 4)
    assert len(info["infotexts"]) == 2
    assert "Seed: 4, Size: 128x128, Model: toy" in info["infotexts"][1]
    told = http.post("/sdapi/v1/png-info", json={"image": answer["images"][0]}).json()
    assert told["info"] == info["infotexts"][0]
    assert (told["parameters"]["Prompt"], told["parameters"]["Steps"]) == ("flat apple <lora:ink:0.5>", "4")
    assert http.post("/sdapi/v1/png-info", json={"image": picture()}).json()["info"] == ""
    assert http.post("/sdapi/v1/png-info", json={"image": "AAAA"}).status_code == 400
    request = engine.requests[-1]
    assert (request.prompt, request.negative_prompt, request.style) == ("flat apple", "grey", "flat")


def test_a_picture_from_a_picture(http: TestClient, engine: ToyEngine) -> None:
    fields = {"prompt": "x", "init_images": [picture()], "denoising_strength": 0.3, "steps": 2}
    assert http.post(IMG, json=fields).status_code == 200
    start = engine.requests[-1].start
    assert start is not None
    assert (start.picture, start.strength, start.mask) == (base64.b64decode(picture()), 0.3, None)
    masked = {**fields, "init_images": [f"data:image/png;base64,{picture()}"], "mask": picture("L"), "mask_blur": 0}
    assert http.post(IMG, json=masked).status_code == 200
    assert engine.requests[-1].start != start
    for wrong, says in (
        ({"init_images": ["http://169.254.169.254/x.png"]}, "URLs are not fetched"),
        ({"init_images": ["data:text/plain,x"]}, "URLs are not fetched"),
        ({"init_images": ["no base64!"]}, "not base64"),
        ({"init_images": [base64.b64encode(b"no picture").decode()]}, "not a PNG, JPEG or WebP"),
        ({"init_images": []}, "at least 1"),
        ({"mask": picture("L", 64)}, "give both the same size"),
        ({"inpaint_full_res": True}, "the whole picture is drawn at once"),
    ):
        refused = http.post(IMG, json={**fields, **wrong})
        assert (refused.status_code, says in refused.json()["detail"]) == (400, True), refused.text


def test_what_there_is(http: TestClient) -> None:
    assert [one["name"] for one in http.get("/sdapi/v1/samplers").json()] == ["Euler", "DDIM"]
    assert [one["label"] for one in http.get("/sdapi/v1/schedulers").json()] == ["Automatic", "Karras", "Uniform"]
    assert http.get("/sdapi/v1/sd-models").json()[0]["model_name"] == "toy"
    assert [one["name"] for one in http.get("/sdapi/v1/loras").json()] == ["chalk", "clay", "ink", "unfit"]
    assert http.get("/sdapi/v1/prompt-styles").json() == [
        {"name": "flat", "prompt": "flat {prompt}", "negative_prompt": "grey"}
    ]
    assert http.get("/sdapi/v1/options").json()["sd_model_checkpoint"] == "toy [1]"
    assert http.get("/sdapi/v1/progress").json()["progress"] == 0.0


def test_progress_and_interrupt_reach_ones_own_requests_only() -> None:
    engine = ToyEngine(step_s=0.02)
    answers: list[httpx.Response] = []
    mine, other = {"authorization": "Bearer sk-good"}, {"authorization": "Bearer sk-other"}
    with listening(routes(engine, "toy", accounts=FewCredits(9))) as url:

        def draw() -> None:
            body = {"prompt": "x", "steps": 100, "force_task_id": "task(1)"}
            answers.append(httpx.post(url + TXT, json=body, headers=mine, timeout=60))

        def asked(path: str, headers: dict[str, str], **query: str) -> httpx.Response:
            method = "GET" if path == "progress" else "POST"
            return httpx.request(method, f"{url}/sdapi/v1/{path}", headers=headers, params=query)

        thread = threading.Thread(target=draw)
        thread.start()
        eventually(lambda: asked("progress", mine).json()["current_image"])
        told = asked("progress", mine, task_id="task(1)").json()
        assert 0 < told["progress"] < 1
        assert told["eta_relative"] > 0
        assert told["state"]["job_count"] == 1
        twin = httpx.post(url + TXT, json={"prompt": "x", "force_task_id": "task(1)"}, headers=mine)
        assert (twin.status_code, "runs already" in twin.json()["detail"]) == (409, True)

        assert asked("progress", other, task_id="task(1)").json()["progress"] == 0.0
        assert asked("interrupt", other, task_id="task(1)").status_code == 404
        assert asked("interrupt", other).status_code == 200  # there is none of theirs
        assert asked("progress", mine, task_id="task(1)").json()["progress"] > 0
        assert asked("interrupt", mine).status_code == 200
        steps = engine.steps
        thread.join(10)
    assert (answers[0].status_code, answers[0].json()["detail"]) == (409, "The request was interrupted")
    assert engine.steps <= steps + 2
