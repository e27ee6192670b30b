"""Prompts: the text towers, one window of tokens at a time.

SDXL's UNet attends to the penultimate hidden states of both towers side by side, and is told the pooled projection of
the second (arXiv 2307.01952, section 2.1). Its unconditional prompt is zeros, as `force_zeros_for_empty_prompt` asks.
The SD-1.5 line has one tower: the text is its last hidden state, nothing is pooled, and the unconditional prompt is the
empty one.

A prompt longer than the towers read is cut into windows, each encoded apart from the others, and joined along T. Pooled
is the first window's alone, as in AUTOMATIC1111, ComfyUI and compel, so that pictures agree with theirs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import DiffusionPipeline
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from ssd1b.sampling.weights import Spans, plain
from ssd1b.sampling.windows import pack, tokenize

# B batch (of windows beside W, else of prompts), W tokens of a window with its two markers, T text tokens
# (windows * W), D widths of the towers, E width of the pooled embedding (0 without one)

WINDOWS = 4
"""The most windows of one prompt: attention to text costs as much as there is of it."""


class Text(NamedTuple):
    """One prompt as the UNet is told of it, float32 on the CPU."""

    text_TD: Tensor
    pooled_E: Tensor


@dataclass(frozen=True)
class Prompts:
    """Tokenizers and text towers of one model: SDXL's two, or the one of the SD-1.5 line."""

    tokenizers: tuple[CLIPTokenizer, ...]
    towers: tuple[CLIPTextModel | CLIPTextModelWithProjection, ...]

    @staticmethod
    def load(folder: Path) -> "Prompts":
        """Read the text side of a folder in diffusers layout, float32 on the CPU.

        Raises:
            ValueError: the folder lacks a tokenizer or a tower.
        """
        names = ["tokenizer", "text_encoder"]
        if any((folder / f"{name}_2").is_dir() for name in names):
            names += [f"{name}_2" for name in names]
        for name in names:
            if not (folder / name).is_dir():
                raise ValueError(f"{folder} has no {name}: give the folder of a whole pipeline in diffusers layout")
        tokenizers = [CLIPTokenizer.from_pretrained(folder / name) for name in names[::2]]
        kinds = (CLIPTextModel, CLIPTextModelWithProjection)
        towers = [
            kind.from_pretrained(folder / name, dtype=torch.float32).eval()
            for kind, name in zip(kinds, names[1::2], strict=False)
        ]
        return Prompts(tuple(tokenizers), tuple(towers))

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
        return int(self.towers[0].config.max_position_embeddings) - 2

    @property
    def longest(self) -> int:
        """Tokens a prompt may have, markers not counted."""
        return WINDOWS * self.limit

    def count(self, prompt: Spans) -> int:
        """Return the tokens of a prompt, markers not counted; the longest of the tokenizers' counts."""
        return max(len(tokenize(tokenizer, prompt).ids) for tokenizer in self.tokenizers)

    @torch.no_grad()
    def read(self, prompts: Sequence[Spans]) -> list[Text]:
        """Return prompts of any length up to `longest`, those of as many windows encoded in one batch.

        A token of weight w has the state empty + w * (token - empty), empty being the empty prompt's state at the same
        place of a window: weight 1 changes no bit. A long prompt changes no bit of a short one beside it.

        Raises:
            ValueError: too many tokens, with the count and the limit.
        """
        lengths: dict[int, list[int]] = {}
        for i, prompt in enumerate(prompts):
            tokens = self.count(prompt)
            if tokens > self.longest:
                start = "".join(span.text for span in prompt)[:60]
                raise ValueError(f"the prompt has {tokens} tokens, the limit is {self.longest}: shorten {start!r}...")
            lengths.setdefault(max(1, -(-tokens // self.limit)), []).append(i)
        texts: dict[int, Text] = {}
        for windows, members in lengths.items():
            texts |= zip(members, self.encode_windows([prompts[i] for i in members], windows), strict=True)
        return [texts[i] for i in range(len(prompts))]

    def encode_windows(self, prompts: Sequence[Spans], windows: int) -> list[Text]:
        """Return prompts that need at most so many windows, in one batch."""
        packed = [pack(tokenizer, prompts, self.limit, windows) for tokenizer in self.tokenizers]
        text_BWD, pooled_BE = hidden_and_pooled(self.towers, [ids_BW for ids_BW, _ in packed])
        text_BTD = text_BWD.reshape(len(prompts), -1, text_BWD.shape[-1]).float().cpu()
        if any(span.weight != 1 for prompt in prompts for span in prompt):
            weight_BTD = torch.cat(
                [
                    weight_BW.reshape(len(prompts), -1, 1).expand(-1, -1, tower.config.hidden_size)
                    for (_, weight_BW), tower in zip(packed, self.towers, strict=True)
                ],
                dim=-1,
            )
            # lerp ends exactly at its end where the weight is 1
            text_BTD = torch.lerp(self.empty().text_TD.repeat(windows, 1), text_BTD, weight_BTD)
        return [Text(*one) for one in zip(text_BTD, pooled_BE[::windows].float().cpu(), strict=True)]

    def empty(self) -> Text:
        """Return the empty prompt."""
        return self.read([plain("")])[0]

    def longer(self, text: Text, tokens: int) -> Text:
        """Return a text of so many tokens, a multiple of a window: windows of the empty prompt follow it."""
        missing = (tokens - len(text.text_TD)) // (self.limit + 2)
        if not missing:
            return text
        return Text(torch.cat([text.text_TD, *[self.empty().text_TD] * missing]), text.pooled_E)

    def unconditional(self, tokens: int | None = None) -> Text:
        """Return what stands for no prompt, in so many tokens (default one window)."""
        tokens = tokens or self.limit + 2
        if len(self.towers) == 1:
            return self.longer(self.empty(), tokens)
        width = sum(tower.config.hidden_size for tower in self.towers)
        return Text(torch.zeros(tokens, width), torch.zeros(self.towers[-1].config.projection_dim))

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
        return hidden_and_pooled(self.towers, self.first_window(captions))

    def first_window(self, captions: Sequence[str]) -> list[Tensor]:
        """Return ids_BW of captions for each tower; what does not fit is cut off."""
        return [
            tokenizer(
                list(captions), padding="max_length", max_length=self.limit + 2, truncation=True, return_tensors="pt"
            ).input_ids
            for tokenizer in self.tokenizers
        ]


def hidden_and_pooled(
    towers: Sequence[CLIPTextModel | CLIPTextModelWithProjection], ids: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return (text_BWD, pooled_BE) of ids_BW, one for each tower, where the towers lie and in their precision."""
    outputs = [
        tower(ids_BW.to(tower.device), output_hidden_states=True) for tower, ids_BW in zip(towers, ids, strict=True)
    ]
    if len(outputs) == 1:
        text_BWD: Tensor = outputs[0].last_hidden_state
        return text_BWD, text_BWD.new_zeros(len(text_BWD), 0)
    pooled_BE: Tensor = outputs[-1].text_embeds
    return torch.cat([output.hidden_states[-2] for output in outputs], dim=-1), pooled_BE
