"""A small picture of unfinished latents at the cost of one matrix product, for partial images.

A latent position is nearly the colour of the pixels it stands for, turned by a linear map that each VAE has of its own.
So the map is fitted per VAE, from latents and what its decoder makes of them, and lies beside its weights as
`vae/preview.json`, where an engine bundle takes it along. That of the nano family was made so, from latents of the
shipped corpus: `fit(Decoder.load(folder), latents_BCHW).save(folder)`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

# B batch, C latent channels, H W latent size, 3 red green blue, P latent positions of all pictures

FILE = Path("vae") / "preview.json"


@dataclass(frozen=True)
class Preview:
    """The linear map from latents to colours, in levels of 255."""

    weight_C3: Tensor
    bias_3: Tensor

    def __call__(self, latents_BCHW: Tensor) -> Tensor:
        """Return uint8 pictures (B, H, W, 3) on the CPU, one pixel a latent position.

        latents_BCHW are finished latents or an estimate of them (`Row.denoised_CHW`), on any device.
        """
        latents_BHWC = latents_BCHW.float().movedim(1, -1)
        levels_BHW3 = latents_BHWC @ self.weight_C3.to(latents_BHWC.device) + self.bias_3.to(latents_BHWC.device)
        return levels_BHW3.round().clamp(0, 255).to(torch.uint8).cpu()

    def save(self, folder: Path) -> None:
        """Write the map into a folder in diffusers layout."""
        rounded = {
            "weight": [[round(x, 4) for x in row] for row in self.weight_C3.tolist()],
            "bias": [round(x, 4) for x in self.bias_3.tolist()],
        }
        (folder / FILE).write_text(json.dumps(rounded) + "\n")

    @staticmethod
    def load(folder: Path) -> "Preview":
        """Read the map of a folder in diffusers layout, or of an engine bundle.

        Raises:
            ValueError: it has none.
        """
        if not (folder / FILE).is_file():
            raise ValueError(f"{folder} has no {FILE}: make it with ssd1b.sampling.preview.fit from latents of its VAE")
        read = json.loads((folder / FILE).read_text())
        return Preview(torch.tensor(read["weight"]), torch.tensor(read["bias"]))


def fit(decode: Callable[[Tensor], Tensor], latents_BCHW: Tensor, batch: int = 16) -> Preview:
    """Return the map that comes nearest, in least squares, to what decode makes of the latents, averaged per position.

    decode maps latents to uint8 pictures (`Decoder`). Some hundred pictures of many colours do.

    Raises:
        ValueError: fewer latent positions than the map has numbers.
    """
    positions_PC = latents_BCHW.float().movedim(1, -1).flatten(0, 2).cpu()
    if len(positions_PC) <= positions_PC.shape[1]:
        raise ValueError(f"{len(positions_PC)} latent positions: give at least a whole picture")
    parts = [latents_BCHW[i : i + batch] for i in range(0, len(latents_BCHW), batch)]
    colours_P3 = torch.cat([averaged(decode(part), part.shape[-1]) for part in parts])
    known_PX = torch.cat([positions_PC, torch.ones(len(positions_PC), 1)], dim=1)
    map_X3 = torch.linalg.lstsq(known_PX.double(), colours_P3.double()).solution.float()
    return Preview(map_X3[:-1], map_X3[-1])


def averaged(pictures_BHW3: Tensor, width: int) -> Tensor:
    """Return the mean colour of the pixels of each latent position, for latents of this width, as (P, 3)."""
    levels_B3HW = pictures_BHW3.movedim(-1, 1).float()
    side = levels_B3HW.shape[-1] // width
    return torch.nn.functional.avg_pool2d(levels_B3HW, side).movedim(1, -1).flatten(0, 2).cpu()
