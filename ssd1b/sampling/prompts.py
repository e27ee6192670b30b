"""Prompts: the text towers, one window of tokens at a time.

SDXL's unconditional prompt is zeros, as `force_zeros_for_empty_prompt` asks. The SD-1.5 line has one tower, and its
unconditional prompt is the empty one.

A prompt longer than the towers read is cut into windows, each encoded apart from the others, and joined along T. Pooled
is the first window's alone, as in AUTOMATIC1111, ComfyUI and compel, so that pictures agree with theirs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import DiffusionPipeline
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from ssd1b.sampling.text import TextEngine, Tower, Towers
from ssd1b.sampling.weights import Spans, plain
from ssd1b.sampling.windows import pack, tokenize

# B batch (of windows beside W, else of prompts), W tokens of a window with its two markers, T text tokens
# (windows * W), D widths of the towers, E width of the pooled embedding (0 without one)

WINDOWS = 4
"""The most windows of one prompt: attention to text costs as much as there is of it."""


Adapted = tuple[int, float]
"""Slot and weight of a prompt's text adapter."""
PLAIN: Adapted = (0, 1.0)
"""No text adapter."""


class Text(NamedTuple):
    """One prompt as the UNet is told of it, float32 on the CPU."""

    text_TD: Tensor
    pooled_E: Tensor


@dataclass(frozen=True)
class Prompts:
    """Tokenizers and text towers of one model: SDXL's two, or the one of the SD-1.5 line."""

    tokenizers: tuple[CLIPTokenizer, ...]
    towers: tuple[Tower, ...]
    """In torch; () where an engine runs others."""
    engine: TextEngine | None = None
    """What runs instead of the towers."""
    adapter: Adapted = PLAIN
    """Text adapter of every prompt that is not given another."""

    def wearing(self, slot: int, scale: float) -> "Prompts":
        """Return the same text side with a text adapter for every prompt, negative and empty ones too."""
        return replace(self, adapter=(slot, scale))

    @property
    def text(self) -> TextEngine:
        """What runs: the engine, or the towers themselves."""
        return self.engine or Towers(self.towers)

    @staticmethod
    def load(folder: Path) -> "Prompts":
        """Read the text side of a folder in diffusers layout, float32 on the CPU.

        Raises:
            ValueError: the folder lacks a tokenizer or a tower.
        """
        tokenizers, names = tokenizers_of(folder)
        kinds = (CLIPTextModel, CLIPTextModelWithProjection)
        towers = [
            kind.from_pretrained(folder / name, dtype=torch.float32).eval()
            for kind, name in zip(kinds, names, strict=False)
        ]
        return Prompts(tokenizers, tuple(towers))

    @staticmethod
    def through(folder: Path, engine: TextEngine) -> "Prompts":
        """Read the tokenizers of a folder in diffusers layout, for an engine that runs its towers.

        Raises:
            ValueError: the folder lacks a tokenizer or a tower.
        """
        return Prompts(tokenizers_of(folder)[0], (), engine)

    @staticmethod
    def of(pipeline: DiffusionPipeline) -> "Prompts":
        """Return the text side of a loaded pipeline, where it lies and in its precision."""
        tokenizers, towers = [pipeline.tokenizer], [pipeline.text_encoder]
        if getattr(pipeline, "text_encoder_2", None) is not None:
            tokenizers.append(pipeline.tokenizer_2)
            towers.append(pipeline.text_encoder_2)
        return Prompts(tuple(tokenizers), tuple(towers))

    @property
    def limit(self) -> int:
        """Tokens of one window, the two markers not counted."""
        return self.text.window - 2

    @property
    def longest(self) -> int:
        """Tokens a prompt may have, markers not counted."""
        return WINDOWS * self.limit

    def count(self, prompt: Spans) -> int:
        """Return the tokens of a prompt, markers not counted; the longest of the tokenizers' counts."""
        return max(len(tokenize(tokenizer, prompt).ids) for tokenizer in self.tokenizers)

    @torch.no_grad()
    def read(self, prompts: Sequence[Spans], adapters: Sequence[Adapted] | None = None) -> list[Text]:
        """Return prompts of any length up to `longest`, those of as many windows encoded in one batch, equal ones once.

        adapters are the prompts' text adapters (None: `adapter` for all); plain towers have none. A token of weight w
        has the state empty + w * (token - empty), empty being the empty prompt's state at the same place of a window:
        weight 1 changes no bit. A long prompt changes no bit of a short one beside it.

        Raises:
            ValueError: too many tokens, with the count and the limit.
        """
        asked = list(zip(prompts, adapters or [self.adapter] * len(prompts), strict=True))
        lengths: dict[int, list[tuple[Spans, Adapted]]] = {}
        for prompt, adapter in dict.fromkeys(asked):
            tokens = self.count(prompt)
            if tokens > self.longest:
                start = "".join(span.text for span in prompt)[:60]
                raise ValueError(f"the prompt has {tokens} tokens, the limit is {self.longest}: shorten {start!r}...")
            lengths.setdefault(max(1, -(-tokens // self.limit)), []).append((prompt, adapter))
        texts: dict[tuple[Spans, Adapted], Text] = {}
        for windows, alike in lengths.items():
            chosen, worn = zip(*alike, strict=True)
            texts |= zip(alike, self.encode_windows(chosen, worn, windows), strict=True)
        return [texts[one] for one in asked]

    def encode_windows(self, prompts: Sequence[Spans], adapters: Sequence[Adapted], windows: int) -> list[Text]:
        """Return prompts that need at most so many windows, in one batch."""
        packed = [pack(tokenizer, prompts, self.limit, windows) for tokenizer in self.tokenizers]
        slot_B, scale_B = (torch.tensor(column).repeat_interleave(windows) for column in zip(*adapters, strict=True))
        text_BWD, pooled_BE = self.text([ids_BW for ids_BW, _ in packed], slot_B, scale_B.float())
        text_BTD = text_BWD.reshape(len(prompts), -1, text_BWD.shape[-1]).float().cpu()
        if any(span.weight != 1 for prompt in prompts for span in prompt):
            weight_BTD = torch.cat(
                [
                    weight_BW.reshape(len(prompts), -1, 1).expand(-1, -1, width)
                    for (_, weight_BW), width in zip(packed, self.text.widths, strict=True)
                ],
                dim=-1,
            )
            empty = {adapter: self.empty(adapter).text_TD.repeat(windows, 1) for adapter in dict.fromkeys(adapters)}
            # lerp ends exactly at its end where the weight is 1
            text_BTD = torch.lerp(torch.stack([empty[adapter] for adapter in adapters]), text_BTD, weight_BTD)
        return [Text(*one) for one in zip(text_BTD, pooled_BE[::windows].float().cpu(), strict=True)]

    def empty(self, adapter: Adapted | None = None) -> Text:
        """Return the empty prompt."""
        return self.read([plain("")], [adapter or self.adapter])[0]

    def longer(self, text: Text, tokens: int, adapter: Adapted | None = None) -> Text:
        """Return a text of so many tokens, a multiple of a window: windows of the empty prompt follow it."""
        missing = (tokens - len(text.text_TD)) // (self.limit + 2)
        if not missing:
            return text
        return Text(torch.cat([text.text_TD, *[self.empty(adapter).text_TD] * missing]), text.pooled_E)

    def unconditional(self, tokens: int | None = None) -> Text:
        """Return what stands for no prompt, in so many tokens (default one window)."""
        tokens = tokens or self.limit + 2
        widths = self.text.widths
        if len(widths) == 1:
            return self.longer(self.empty(), tokens)
        return Text(torch.zeros(tokens, sum(widths)), torch.zeros(self.text.pooled))

    @torch.no_grad()
    def encode(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return (text_BTD, pooled_BE) of captions that fit into one window, in one batch; brackets are text.

        Raises:
            ValueError: a caption is too long.
        """
        for caption in captions:
            if (tokens := self.count(plain(caption))) > self.limit:
                raise ValueError(
                    f"the caption has {tokens} tokens, the limit is {self.limit}: shorten {caption[:60]!r}..."
                )
        return self.text(self.first_window(captions), None, None)

    def first_window(self, captions: Sequence[str]) -> list[Tensor]:
        """Return ids_BW of captions for each tower; what does not fit is cut off."""
        return [
            tokenizer(
                list(captions), padding="max_length", max_length=self.limit + 2, truncation=True, return_tensors="pt"
            ).input_ids
            for tokenizer in self.tokenizers
        ]


def tokenizers_of(folder: Path) -> tuple[tuple[CLIPTokenizer, ...], list[str]]:
    """Return the tokenizers of a folder in diffusers layout, and the names of its towers.

    Raises:
        ValueError: the folder lacks a tokenizer or a tower.
    """
    names = ["tokenizer", "text_encoder"]
    if any((folder / f"{name}_2").is_dir() for name in names):
        names += [f"{name}_2" for name in names]
    for name in names:
        if not (folder / name).is_dir():
            raise ValueError(f"{folder} has no {name}: give the folder of a whole pipeline in diffusers layout")
    return tuple(CLIPTokenizer.from_pretrained(folder / name) for name in names[::2]), names[1::2]
