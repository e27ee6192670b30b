"""Train the scorer's head: python -m ssd1b.evaluation.fit nano.

Symmetric InfoNCE over (picture, caption) pairs of the train split; captions name the thing and its style, so a picture
of the right thing in the wrong style is a wrong answer too. Each picture is also seen mirrored and softened, since
pictures that a small VAE decodes are soft. Held-out concepts judge the result and never train it.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from ssd1b.command import main, show
from ssd1b.evaluation import efficientnet
from ssd1b.evaluation.efficientnet import picture_features
from ssd1b.evaluation.scorer import CARD, HEAD, Head, Language
from ssd1b.pretraining.pictures import Pictures, read_pictures

# N pictures, K captions of a picture (4), V views (2), B batch, D picture features, L language features, E common width


@dataclass(frozen=True, kw_only=True)
class ScorerTraining:
    """How the head is trained."""

    epochs: int = 25
    batch: int = 256
    lr: float = 1e-3
    weight_decay: float = 1.0
    dropout: float = 0.5
    start_scale: float = 14.0
    """Logits are the cosine times this to begin with; it is learned, as CLIP's temperature is (arXiv 2103.00020)."""
    soften: float = 0.5
    """The softened view is scaled down by this and up again."""
    seed: int = 0
    out: str = str(HEAD.parent)
    """Folder that gets head.safetensors and card.json."""


@dataclass(frozen=True, kw_only=True)
class Examples:
    """One split in the frozen networks' features."""

    images_VND: Tensor
    texts_NKL: Tensor
    concepts: list[str]
    styles: list[str]

    def __len__(self) -> int:
        return len(self.concepts)


def fit(config: ScorerTraining) -> dict[str, Any]:
    """Train the head, write it with its card, and return the card's measurements."""
    examples = {}
    for split in ("train", "heldout"):
        show(f"features of the {split} split")
        examples[split] = read_examples(read_pictures(split=split), config.soften)
    head = train(examples["train"], config)
    measured = measure(head, examples["heldout"])
    size = write(head, config, {split: len(each) for split, each in examples.items()}, measured)
    return {**measured, "head_bytes": size}


def write(head: Head, config: ScorerTraining, pictures: Mapping[str, int], measured: Mapping[str, float]) -> int:
    """Write head and card; return the head's bytes."""
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    path = out / HEAD.name
    save_file({name: tensor.half().contiguous() for name, tensor in head.state_dict().items()}, path)
    path.chmod(0o644)  # safetensors leaves 0600
    recipe = {key: value for key, value in dataclasses.asdict(config).items() if key != "out"}
    card = {"recipe": recipe, "pictures": pictures, "heldout_concepts": measured}
    (out / CARD.name).write_text(json.dumps(card, indent=1) + "\n")
    return path.stat().st_size


def read_examples(pictures: Pictures, soften: float) -> Examples:
    vision, language = efficientnet.load(), Language()
    views = (pictures.pixels_NCHW, softened(pictures.pixels_NCHW, soften))
    captions = sorted({caption for captions in pictures.captions for caption in captions})
    rows = {caption: row for row, caption in enumerate(captions)}
    texts_L = language.features(captions)
    return Examples(
        images_VND=torch.stack([picture_features(vision, view.permute(0, 2, 3, 1)) for view in views]),
        texts_NKL=torch.stack([texts_L[[rows[each] for each in captions]] for captions in pictures.captions]),
        concepts=pictures.concepts,
        styles=pictures.styles,
    )


def softened(pixels_NCHW: Tensor, factor: float) -> Tensor:
    """Return the pictures mirrored, scaled down by the factor and up again, uint8."""
    small = F.interpolate(pixels_NCHW.flip(-1).float(), scale_factor=factor, mode="area")
    return F.interpolate(small, size=pixels_NCHW.shape[-2:], mode="bicubic").round().clamp(0, 255).to(torch.uint8)


def train(examples: Examples, config: ScorerTraining) -> Head:
    """Return the head after `epochs` passes over the pictures, each time in a random view with one of its captions."""
    generator = torch.Generator().manual_seed(config.seed)
    torch.manual_seed(config.seed)  # the head's first weights and its dropout
    head = Head(config.dropout)
    every_D = examples.images_VND.flatten(0, 1)
    head.mean_D.copy_(every_D.mean(0))
    head.deviation_D.copy_(every_D.std(0) + 1e-3)
    log_scale = nn.Parameter(torch.tensor(config.start_scale).log())
    optim = torch.optim.AdamW([*head.parameters(), log_scale], lr=config.lr, weight_decay=config.weight_decay)
    steps = config.epochs * (len(examples) // config.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optim, config.lr, total_steps=steps)
    views, captions = len(examples.images_VND), examples.texts_NKL.shape[1]
    for epoch in range(config.epochs):
        order_N = torch.randperm(len(examples), generator=generator)
        losses = []
        # the last, smaller batch is left out: InfoNCE's loss depends on the batch's size
        for chosen_B in order_N[: len(order_N) // config.batch * config.batch].view(-1, config.batch):
            view_B = torch.randint(views, (config.batch,), generator=generator)
            caption_B = torch.randint(captions, (config.batch,), generator=generator)
            images_BE = head.of_pictures(examples.images_VND[view_B, chosen_B])
            texts_BE = head.of_texts(examples.texts_NKL[chosen_B, caption_B])
            logits_BB = log_scale.exp() * images_BE @ texts_BE.T
            target_B = torch.arange(config.batch)
            loss = (F.cross_entropy(logits_BB, target_B) + F.cross_entropy(logits_BB.T, target_B)) / 2
            optim.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optim.step()
            schedule.step()
            losses.append(loss.item())
        if epoch % 10 == 9:
            show(f"epoch {epoch + 1}/{config.epochs}: loss {sum(losses) / len(losses):.3f}")
    return head.eval()


@torch.inference_mode()
def measure(head: Head, examples: Examples) -> dict[str, float]:
    """Return how well pictures find their own text among those of all pictures of the split.

    "r_at_1", "r_at_5": thing and style right; "concept_r_at_1", "concept_r_at_5": the thing, among texts of the
    picture's own style; "style": the style, among texts of the picture's own thing.
    """
    images_NE = head.of_pictures(examples.images_VND[0])
    texts_NE = head.of_texts(examples.texts_NKL[:, 0])
    cosine_NN = images_NE @ texts_NE.T
    own_N = cosine_NN.diagonal()
    same_style_NN = same(examples.styles)
    same_concept_NN = same(examples.concepts)
    better_NN = cosine_NN > own_N[:, None]
    rank_N = better_NN.sum(1)
    concept_rank_N = (better_NN & same_style_NN).sum(1)
    style_rank_N = (better_NN & same_concept_NN).sum(1)
    unrelated = cosine_NN[~same_style_NN & ~same_concept_NN]
    measured = {
        "texts": float(len(examples)),
        "r_at_1": share(rank_N < 1),
        "r_at_5": share(rank_N < 5),
        "concept_texts": float(same_style_NN.sum(1).float().mean()),
        "concept_r_at_1": share(concept_rank_N < 1),
        "concept_r_at_5": share(concept_rank_N < 5),
        "style": share(style_rank_N < 1),
        "cosine_matched": float(own_N.mean()),
        "cosine_mismatched": float(unrelated.mean()),
        "cosine_softened": float((head.of_pictures(examples.images_VND[1]) * texts_NE).sum(-1).mean()),
    }
    return {name: round(value, 4) for name, value in measured.items()}


def same(names: list[str]) -> Tensor:
    """Return which pairs share a name, boolean (N, N)."""
    index = {name: i for i, name in enumerate(dict.fromkeys(names))}
    ids_N = torch.tensor([index[name] for name in names])
    return ids_N[:, None] == ids_N


def share(hits_N: Tensor) -> float:
    return float(hits_N.float().mean())


def nano() -> ScorerTraining:
    """The shipped head: a few minutes on a CPU, nearly all of it the frozen networks' features."""
    return ScorerTraining()


RECIPES: dict[str, Callable[[], ScorerTraining]] = {"nano": nano}

if __name__ == "__main__":
    main(RECIPES, fit)
