"""Prompts: SDXL's two text towers.

The UNet attends to the penultimate hidden states of both towers side by side, and is told the pooled projection of the
second (arXiv 2307.01952, section 2.1). The unconditional prompt is zeros, as SDXL's `force_zeros_for_empty_prompt`.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

# B batch, T text tokens, D widths of both towers, E width of the pooled embedding


@dataclass(frozen=True)
class Prompts:
    """Tokenizers and text towers of one model, on the CPU in float32."""

    tokenizers: tuple[CLIPTokenizer, CLIPTokenizer]
    towers: tuple[CLIPTextModel, CLIPTextModelWithProjection]

    @staticmethod
    def load(folder: Path) -> "Prompts":
        """Read the text side of a folder in diffusers layout.

        Raises:
            ValueError: the folder lacks a tokenizer or a tower.
        """
        for name in ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2"):
            if not (folder / name).is_dir():
                raise ValueError(f"{folder} has no {name}: give the folder of a whole SDXL-family pipeline")
        first = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
        second = CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder_2", dtype=torch.float32)
        tokenizers = [CLIPTokenizer.from_pretrained(folder / name) for name in ("tokenizer", "tokenizer_2")]
        return Prompts((tokenizers[0], tokenizers[1]), (first.eval(), second.eval()))

    @property
    def limit(self) -> int:
        """Tokens a prompt may have, the two markers not counted."""
        return int(self.towers[0].config.max_position_embeddings) - 2

    def count(self, prompt: str) -> int:
        """Return the tokens of a prompt, the two markers not counted; the longer of the two tokenizers' counts."""
        # verbose=False: the tokenizer warns about length in its own words, `check` says it in ours
        return max(len(tokenizer(prompt, verbose=False).input_ids) for tokenizer in self.tokenizers) - 2

    def check(self, prompt: str) -> None:
        """Refuse a prompt that the towers would cut off.

        Raises:
            ValueError: with the token count and the limit.
        """
        tokens = self.count(prompt)
        if tokens > self.limit:
            raise ValueError(f"the prompt has {tokens} tokens, the limit is {self.limit}: shorten {prompt[:60]!r}...")

    @torch.no_grad()
    def encode(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """Return (text_BTD, pooled_BE), float32.

        Raises:
            ValueError: a prompt is too long.
        """
        for prompt in prompts:
            self.check(prompt)
        hidden, pooled_BE = [], torch.empty(0)
        for tokenizer, tower in zip(self.tokenizers, self.towers, strict=True):
            ids_BT = tokenizer(
                prompts, padding="max_length", max_length=self.limit + 2, truncation=True, return_tensors="pt"
            ).input_ids
            out = tower(ids_BT, output_hidden_states=True)
            hidden.append(out.hidden_states[-2])
            pooled_BE = out[0]  # the second tower's, which comes last
        return torch.cat(hidden, dim=-1), pooled_BE

    def unconditional(self) -> tuple[Tensor, Tensor]:
        """Return the zeros (text_TD, pooled_E) that stand for no prompt."""
        first, second = self.towers
        width = first.config.hidden_size + second.config.hidden_size
        return torch.zeros(self.limit + 2, width), torch.zeros(second.config.projection_dim)
