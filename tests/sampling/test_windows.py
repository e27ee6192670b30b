"""Where prompts are cut, and that a window is what the tokenizer itself would make of it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from ssd1b.models.files import NANO
from ssd1b.sampling.weights import Span, plain
from ssd1b.sampling.windows import cut, pack, tokenize

LIMIT = 30


@pytest.fixture(scope="module")
def tokenizer():
    return CLIPTokenizer.from_pretrained(NANO / "tokenizer")


def windows(lengths, limit):
    """The windows of words of so many tokens, as sizes."""
    words = [word for word, length in enumerate(lengths) for _ in range(length)]
    return [piece.stop - piece.start for piece in cut(words, limit)]


@pytest.mark.parametrize(
    ("lengths", "wanted"),
    [
        ([], [0]),
        ([1] * 4, [4]),
        ([1] * 5, [4, 1]),
        ([3, 2], [3, 2]),  # not inside the second word
        ([3, 2, 3], [4, 4]),  # which would cost a third window here
        ([3, 2, 2], [3, 4]),
        ([9], [4, 4, 1]),  # a word longer than a window
        ([1, 6, 1, 1], [1, 4, 4]),
    ],
)
def test_cut(lengths, wanted):
    assert windows(lengths, 4) == wanted


@settings(deadline=None)
@given(st.lists(st.integers(1, 6)), st.integers(1, 5))
def test_windows_hold_every_token_once_are_as_few_as_can_be_and_break_words_only_to_stay_so(lengths, limit):
    words = [word for word, length in enumerate(lengths) for _ in range(length)]
    pieces = cut(words, limit)
    assert [i for piece in pieces for i in range(piece.start, piece.stop)] == list(range(len(words)))
    assert len(pieces) == max(1, -(-len(words) // limit))
    assert all(piece.stop - piece.start <= limit for piece in pieces)
    for n, piece in enumerate(pieces[:-1]):
        if words[piece.stop - 1] == words[piece.stop]:
            begin = words.index(words[piece.stop])
            assert begin <= piece.start or len(words) - begin > limit * (len(pieces) - n - 1)


@pytest.mark.parametrize(
    "prompt", ["", "a red apple", "a cat's pyjamas, e\u0301 汉字 <|endoftext|> x", "apple " * LIMIT]
)
def test_one_window_is_the_tokenizers_own(tokenizer, prompt):
    wanted = tokenizer(prompt, padding="max_length", max_length=LIMIT + 2, truncation=True, return_tensors="pt")
    ids_BW, weight_BW = pack(tokenizer, [plain(prompt)], LIMIT, 1)
    assert torch.equal(ids_BW, wanted.input_ids)
    assert (weight_BW == 1).all()


def test_a_long_prompt_fills_windows_with_markers_and_padding_of_their_own(tokenizer):
    prompts = [plain("apple " * (LIMIT + 5)), plain("a cat")]
    ids_BW, _ = pack(tokenizer, prompts, LIMIT, 3)
    first, rest, cat, empty = ("apple " * LIMIT, "apple " * 5, "a cat", "")
    wanted = [pack(tokenizer, [plain(text)], LIMIT, 1)[0][0] for text in (first, rest, empty, cat, empty, empty)]
    assert torch.equal(ids_BW, torch.stack(wanted))


def test_weights_stand_where_their_tokens_do(tokenizer):
    prompt = (Span("a "), Span("red", 2.0), Span(" apple " * LIMIT), Span("green", 0.5))
    ids_BW, weight_BW = pack(tokenizer, [prompt], LIMIT, 2)
    ids, _, _ = tokenize(tokenizer, prompt)
    assert ids == tokenizer("a red" + " apple " * LIMIT + "green", verbose=False).input_ids[1:-1]
    for weight, text in ((2.0, "red"), (0.5, "green")):
        token = tokenizer(text, add_special_tokens=False).input_ids
        assert ids_BW[weight_BW == weight].tolist() == token
    assert (weight_BW != 1).sum() == 2
