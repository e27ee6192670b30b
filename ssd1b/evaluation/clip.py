"""Any CLIP of transformers from a local folder: the image-text score at full size, CMMD's features, and PickScore."""

from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

from ssd1b.evaluation.extractor import Extractor, sha256_of
from ssd1b.models.lineage import licence_of

# B pictures or texts, H W pixels, C colours, E width of the common space

BATCH = 64


class Clip:
    """Picture and text towers with the projections that bring them together."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """Read a folder as transformers saves it, with its tokenizer and preprocessor; weights as safetensors.

        Raises:
            ValueError: the folder is no such CLIP.
        """
        weights = sorted(folder.glob("*.safetensors"))
        if not weights or not (folder / "preprocessor_config.json").exists():
            raise ValueError(
                f"{folder} is no CLIP of transformers: it must hold model.safetensors, config.json, a tokenizer and "
                f"preprocessor_config.json, as in a copy of openai/clip-vit-base-patch32"
            )
        model = CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=torch.float32)
        self.model, self.device = model.to(device).eval(), device
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.processor = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
        self.extractor = Extractor(
            name="clip", kind="image-text", source=str(folder), dimension=model.config.projection_dim,
            sha256=sha256_of(weights), licence=licence_of(folder),
        )  # fmt: skip

    @torch.inference_mode()
    def pictures(self, pictures_BHWC: Tensor) -> Tensor:
        """Return unit vectors (B, E) of uint8 pictures."""
        found = []
        for start in range(0, len(pictures_BHWC), BATCH):
            images = [Image.fromarray(each.numpy()) for each in pictures_BHWC[start : start + BATCH]]
            pixels = self.processor(images, return_tensors="pt")["pixel_values"].to(self.device)
            pooled = self.model.vision_model(pixel_values=pixels).pooler_output
            found.append(F.normalize(self.model.visual_projection(pooled), dim=-1).cpu())
        return torch.cat(found)

    @torch.inference_mode()
    def texts(self, texts: list[str]) -> Tensor:
        """Return unit vectors (B, E) of texts; what is longer than the tower reads is cut off."""
        found = []
        for start in range(0, len(texts), BATCH):
            tokens = self.tokenizer(
                texts[start : start + BATCH], padding=True, truncation=True, return_tensors="pt",
                max_length=self.model.config.text_config.max_position_embeddings,
            ).to(self.device)  # fmt: skip
            pooled = self.model.text_model(**tokens).pooler_output
            found.append(F.normalize(self.model.text_projection(pooled), dim=-1).cpu())
        return torch.cat(found)

    def features(self, pictures_BHWC: Tensor) -> Tensor:
        """Return what pictures are compared with one another by: their unit vectors."""
        return self.pictures(pictures_BHWC)

    def see(self, pictures_BHWC: Tensor) -> tuple[Tensor, Tensor]:
        """Return both, which are one thing."""
        unit_BE = self.pictures(pictures_BHWC)
        return unit_BE, unit_BE

    def preference(self, pictures_BHWC: Tensor, prompts: list[str]) -> Tensor:
        """Return each picture's logit for its prompt, shape (B,): with PickScore's weights this is PickScore.

        arXiv 2305.01569, equation 1.
        """
        cosine_B = (self.pictures(pictures_BHWC) * self.texts(prompts)).sum(-1)
        scale: float = self.model.logit_scale.exp().item()
        return scale * cosine_B
