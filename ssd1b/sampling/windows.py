"""Prompts as windows of tokens: as many as the text towers read at once, with the markers and padding they know."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import CLIPTokenizer

from ssd1b.sampling.weights import Spans

# B windows, of one prompt after the other; W tokens of a window with its two markers


class Tokens(NamedTuple):
    """A prompt's tokens without markers, each with its weight and its word: the number of its span, its place in it."""

    ids: list[int]
    weights: list[float]
    words: list[tuple[int, int | None]]


def tokenize(tokenizer: CLIPTokenizer, prompt: Spans) -> Tokens:
    """Return the tokens of a prompt."""
    tokens = Tokens([], [], [])
    for number, span in enumerate(prompt):
        # verbose=False: the tokenizer warns about length in its own words, `read` says it in ours
        encoded = tokenizer(span.text, add_special_tokens=False, verbose=False)
        tokens.ids.extend(encoded.input_ids)
        tokens.weights.extend([span.weight] * len(encoded.input_ids))
        tokens.words.extend((number, word) for word in encoded.word_ids())
    return tokens


def pack(tokenizer: CLIPTokenizer, prompts: Sequence[Spans], limit: int, windows: int) -> tuple[Tensor, Tensor]:
    """Return (ids_BW, weight_BW) of prompts in so many windows each, marked and padded as the tokenizer does it."""
    ids_BW = torch.full((len(prompts) * windows, limit + 2), tokenizer.pad_token_id)
    ids_BW[:, 0], ids_BW[:, 1] = tokenizer.bos_token_id, tokenizer.eos_token_id
    weight_BW = torch.ones(ids_BW.shape)
    for i, prompt in enumerate(prompts):
        ids, weights, words = tokenize(tokenizer, prompt)
        for n, piece in enumerate(cut(words, limit), start=i * windows):
            inside = slice(1, 1 + len(ids[piece]))
            ids_BW[n, inside] = torch.tensor(ids[piece], dtype=torch.int64)
            ids_BW[n, inside.stop] = tokenizer.eos_token_id
            weight_BW[n, inside] = torch.tensor(weights[piece])
    return ids_BW, weight_BW


def cut(words: Sequence[Hashable], limit: int) -> list[slice]:
    """Return the windows of tokens, each of at most `limit`, in order: as few as can be, at least one.

    words[i] names the word that token i belongs to. A cut falls between words, unless that would cost a window more.
    """
    left = max(1, -(-len(words) // limit))
    windows, start = [], 0
    for left_after in range(left - 1, 0, -1):
        end = word_begin = start + limit
        while word_begin > start and words[word_begin] == words[word_begin - 1]:
            word_begin -= 1
        if word_begin > start and len(words) - word_begin <= limit * left_after:
            end = word_begin
        windows.append(slice(start, end))
        start = end
    return [*windows, slice(start, len(words))]
