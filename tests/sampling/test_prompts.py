"""Prompts: bit for bit diffusers' where diffusers reads them, and what a longer or weighted one must be."""

import shutil
from dataclasses import replace

import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTextModel, CLIPTokenizer

from ssd1b.models.files import NANO, load_pipeline
from ssd1b.sampling.prompts import WINDOWS, Prompts
from ssd1b.sampling.weights import Span, parse, plain

PROMPT = "a red apple, flat vector style"
WINDOW = 32


@pytest.fixture(scope="module")
def prompts():
    return Prompts.load(NANO)


@pytest.fixture(scope="module")
def pipeline():
    return load_pipeline("nano", unet=None, vae=None)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    "texts", [[PROMPT], [PROMPT, ""], ["apple " * 30], ["a cat's pyjamas, 3 e\u0301 汉字", ":) ++ x"]]
)
def test_a_prompt_without_syntax_is_diffusers_bit_for_bit(prompts, pipeline, texts):
    wanted, _, wanted_pooled, _ = pipeline.encode_prompt(texts, do_classifier_free_guidance=False)
    for read in (plain, parse):
        made = prompts.read([read(text) for text in texts])
        assert torch.equal(torch.stack([text.text_TD for text in made]), wanted)
        assert torch.equal(torch.stack([text.pooled_E for text in made]), wanted_pooled)
    assert same(prompts.encode(texts), (wanted, wanted_pooled))


def test_no_prompt_is_zeros_of_the_length_asked_for(prompts):
    for tokens, wanted in ((None, WINDOW), (3 * WINDOW, 3 * WINDOW)):
        zeros = prompts.unconditional(tokens)
        assert (zeros.text_TD.shape, zeros.pooled_E.shape) == ((wanted, 128), (128,))
        assert not any(part.any() for part in zeros)


def test_a_long_prompt_is_its_windows_one_after_the_other(prompts):
    """Windows are encoded apart from each other; pooled is the first's."""
    (made,) = prompts.read([plain("apple " * 30 + "green " * 30 + "dog")])
    parts = [prompts.read([plain(text)])[0] for text in ("apple " * 30, "green " * 30, "dog")]
    torch.testing.assert_close(made.text_TD, torch.cat([part.text_TD for part in parts]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(made.pooled_E, parts[0].pooled_E, atol=1e-5, rtol=1e-5)


def test_a_long_prompt_changes_no_bit_of_a_short_one_beside_it(prompts):
    texts = [plain("apple " * 40), plain(PROMPT), plain("dog " * 95)]
    together = prompts.read(texts)
    assert [len(text.text_TD) for text in together] == [2 * WINDOW, WINDOW, 4 * WINDOW]
    for text, made in zip(texts, together, strict=True):
        assert same(prompts.read([text])[0], made)


def test_equal_prompts_are_encoded_once(prompts):
    rows: list[int] = []

    class Counting:
        def __getattr__(self, name):
            return getattr(prompts.text, name)

        def __call__(self, ids, slot_B, scale_B):
            rows.append(len(ids[0]))
            return prompts.text(ids, slot_B, scale_B)

    counting = replace(prompts, engine=Counting())
    texts = counting.read([plain("a red apple"), plain("a lemon"), *[plain("a red apple")] * 3])
    assert rows == [2]
    alone = prompts.read([plain("a red apple"), plain("a lemon")])
    assert all(torch.equal(text.text_TD, alone[i].text_TD) for i, text in zip((0, 1, 0, 0, 0), texts, strict=True))


def test_longer_adds_windows_of_the_empty_prompt(prompts):
    text, empty = prompts.read([plain("a cat")])[0], prompts.empty()
    longer = prompts.longer(text, 3 * WINDOW)
    assert torch.equal(longer.text_TD, torch.cat([text.text_TD, empty.text_TD, empty.text_TD]))
    assert torch.equal(longer.pooled_E, text.pooled_E)
    assert prompts.longer(text, WINDOW) is text


def test_too_long_says_how_long_and_the_limit(prompts):
    assert prompts.longest == WINDOWS * 30
    prompts.read([plain("apple " * 120)])
    prompts.encode(["apple " * 30])
    with pytest.raises(ValueError, match=r"121 tokens, the limit is 120.*'apple apple"):
        prompts.read([plain("a cat"), plain("apple " * 121)])
    with pytest.raises(ValueError, match="31 tokens, the limit is 30"):
        prompts.encode(["a cat", "apple " * 31])


def test_brackets_and_numbers_are_not_counted(prompts):
    assert prompts.count(parse("a (red:1.3) [apple]")) == prompts.count(plain("a red apple")) == 3


def test_weight_one_changes_no_bit(prompts):
    plainly = prompts.read([plain("a red apple on a table")])[0]
    assert same(prompts.read([parse("a (red:1.0) apple ((on:2):0.5) a table")])[0], plainly)
    weighted = prompts.read([parse("a (red:1.0) apple (on:3) a table")])[0]
    differ = (weighted.text_TD != plainly.text_TD).any(1).nonzero().flatten()
    assert differ.tolist() == [4]  # after the marker: a red apple ON
    assert torch.equal(weighted.pooled_E, plainly.pooled_E)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.3, -1.0])
@pytest.mark.parametrize("before", ["", "apple " * 31])
def test_weights_scale_the_distance_from_the_empty_prompt(prompts, weight, before):
    """In the first window and in a later one."""
    text, empty = prompts.read([plain(f"{before}a red dog")])[0].text_TD, prompts.empty().text_TD
    made = prompts.read([(Span(f"{before}a "), Span("red", weight), Span(" dog"))])[0].text_TD
    place = 2 if not before else WINDOW + 3
    at = empty[place % WINDOW]
    torch.testing.assert_close(made[place], at + weight * (text[place] - at), atol=1e-5, rtol=1e-5)
    others = torch.arange(len(made)) != place
    assert torch.equal(made[others], text[others])


def test_the_line_with_one_tower(tmp_path):
    """SD-1.5: the last hidden state, nothing pooled, the empty prompt for none."""
    for name in ("tokenizer", "text_encoder"):
        shutil.copytree(NANO / name, tmp_path / name)
    prompts = Prompts.load(tmp_path)
    tower = CLIPTextModel.from_pretrained(NANO / "text_encoder", dtype=torch.float32).eval()
    theirs = StableDiffusionPipeline(
        vae=None, text_encoder=tower, tokenizer=CLIPTokenizer.from_pretrained(NANO / "tokenizer"), unet=None,
        scheduler=None, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    wanted, unconditional = theirs.encode_prompt([PROMPT], "cpu", 1, True)
    (made,) = prompts.read([plain(PROMPT)])
    assert torch.equal(made.text_TD, wanted[0])
    assert made.pooled_E.shape == (0,)
    assert torch.equal(prompts.unconditional().text_TD, unconditional[0])
    assert prompts.unconditional(64).text_TD.shape == (64, 64)


@pytest.mark.parametrize("missing", ["tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2"])
def test_a_folder_without_a_part_is_refused(tmp_path, missing):
    for name in ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2"):
        if name != missing:
            (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=f"has no {missing}"):
        Prompts.load(tmp_path)
