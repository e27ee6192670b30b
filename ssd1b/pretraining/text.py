"""Train the nano text towers: a small CLIP vocabulary, then both towers by contrast with a small image tower.

The image tower and the projection of the first tower are scaffolding: they are thrown away afterwards. Loss:
symmetric InfoNCE (CLIP, arXiv 2103.00020, figure 3), one term per text tower against the same image embedding.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from ssd1b.pretraining.fit import Metrics, fit
from ssd1b.pretraining.pictures import Pictures
from ssd1b.recipes.pretrain import TextTraining

# B batch, T text tokens, D width of a tower, E width of the shared embedding, C H W picture

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True)
class TextTowers:
    """SDXL's text side: one tokenizer, two towers."""

    tokenizer: CLIPTokenizer
    first: CLIPTextModel
    second: CLIPTextModelWithProjection


def train_tokenizer(captions: Iterable[str], size: int, tokens: int, folder: Path) -> CLIPTokenizer:
    """Learn a byte-pair vocabulary on the captions and write it in CLIP's layout (vocab.json, merges.txt)."""
    tokenizer = Tokenizer(models.BPE(unk_token=END, end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=size - 2 - len(alphabet),  # CLIP's vocabulary holds every byte with and without the word end
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    pieces = sorted(alphabet) + [f"{byte}</w>" for byte in alphabet]
    pieces += [piece for piece in learned["vocab"] if piece not in set(pieces)]
    vocabulary = {piece: i for i, piece in enumerate([*pieces, BEGIN, END])}
    write_clip_files(vocabulary, learned["merges"], folder)
    made = CLIPTokenizer.from_pretrained(
        folder, bos_token=BEGIN, eos_token=END, pad_token=END, unk_token=END, model_max_length=tokens
    )
    made.save_pretrained(folder)
    return made


def write_vocabulary(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write a tokenizer's vocabulary in CLIP's layout beside whatever the folder holds."""
    held = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    write_clip_files(held["vocab"], held["merges"], folder)


def write_clip_files(vocabulary: Mapping[str, int], merges: Iterable[Iterable[str]], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges), ""]))


def new_towers(config: TextTraining, tokenizer: CLIPTokenizer) -> TextTowers:
    """Return untrained towers of the configured width."""

    def tower(layers: int, activation: str) -> CLIPTextConfig:
        return CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.width,
            intermediate_size=4 * config.width,
            num_hidden_layers=layers,
            num_attention_heads=max(1, config.width // 32),
            max_position_embeddings=config.tokens,
            hidden_act=activation,
            projection_dim=config.embedding,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )

    first, second = config.layers
    return TextTowers(
        tokenizer,
        CLIPTextModel(tower(first, "quick_gelu")),
        CLIPTextModelWithProjection(tower(second, "gelu")),
    )


class ImageTower(nn.Module):
    """Five strided convolutions over 64-pixel pictures; scaffolding for the contrast."""

    def __init__(self, embedding: int) -> None:
        super().__init__()
        widths = (3, 32, 64, 128, 192)
        layers: list[nn.Module] = []
        for inside, outside in pairwise(widths):
            layers += [nn.Conv2d(inside, outside, 3, 2, 1), nn.GroupNorm(8, outside), nn.SiLU()]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.2), nn.Linear(192 * 16, embedding))

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """Return embeddings of float pictures in [-1, 1], shape (B, E)."""
        return self.body(pixels_BCHW)  # type: ignore[no-any-return]


def train_text(
    config: TextTraining,
    pictures: Pictures,
    captions: Iterable[str],
    root: Path,
    report: Callable[[int, Metrics], None],
    start: TextTowers | None = None,
) -> TextTowers:
    """Return the trained towers, with the vocabulary of `start` where that is given.

    captions feed the vocabulary and may be more than the pictures have.
    """
    torch.manual_seed(config.seed)
    if start is None:
        tokenizer = train_tokenizer(captions, config.vocabulary, config.tokens, root / "tokenizer")
        towers = new_towers(config, tokenizer)
    else:
        tokenizer, towers = start.tokenizer, start
        towers.first.train()
        towers.second.train()
    image = ImageTower(config.embedding)
    first_head = nn.Linear(config.width, config.embedding)
    scale = nn.ParameterList([nn.Parameter(torch.tensor(2.7))])
    small_NCHW = F.interpolate(pictures.pixels_NCHW.float() / 127.5 - 1, size=64, mode="area")
    modules = {
        "first": towers.first, "second": towers.second, "image": image, "first_head": first_head, "scale": scale,
    }  # fmt: skip

    def loss_at(step: int) -> tuple[Tensor, Metrics]:
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        torch.manual_seed(config.seed * 1_000_003 + step)  # dropout of the image tower
        rows = torch.randperm(len(pictures), generator=generator)[: config.batch]
        pixels_BCHW = jitter(small_NCHW[rows], generator)
        picks = torch.randint(1 << 30, (len(rows),), generator=generator).tolist()
        texts = [pictures.captions[i][k % len(pictures.captions[i])] for i, k in zip(rows.tolist(), picks, strict=True)]
        batch = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
        image_BE = F.normalize(image(pixels_BCHW), dim=-1)
        pooled = (
            first_head(towers.first(batch.input_ids).pooler_output),
            towers.second(batch.input_ids).text_embeds,
        )
        loss, metrics = torch.zeros(()), {}
        for name, text_BE in zip(("first", "second"), pooled, strict=True):
            logits_BB = scale[0].exp().clamp(max=50) * image_BE @ F.normalize(text_BE, dim=-1).T
            target = torch.arange(len(rows))
            loss = loss + (F.cross_entropy(logits_BB, target) + F.cross_entropy(logits_BB.T, target)) / 2
            metrics[f"{name}_top1"] = (logits_BB.argmax(1) == target).float().mean().item()
        return loss, {"contrast_loss": loss.item()} | metrics

    fit(root, modules, loss_at, config.optim, report=report)
    towers.first.eval()
    towers.second.eval()
    return towers


def jitter(pixels_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Shift the pictures by up to 4 pixels and mirror half of them, so that the image tower cannot learn by heart."""
    dy, dx = torch.randint(-4, 5, (2,), generator=generator).tolist()
    shifted = pixels_BCHW.roll((dy, dx), dims=(2, 3))
    mirrored = torch.rand(len(shifted), generator=generator) < 0.5
    return torch.where(mirrored[:, None, None, None], shifted.flip(-1), shifted)
