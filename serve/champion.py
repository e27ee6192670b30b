"""An opened engine bundle as the painter that a workshop needs."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from serve.fitting import LATENT_PIXELS, fitted, fitted_mask
from serve.offer import Offer
from serve.request import GenerationRequest, Start
from serve.steps.scheduler import Need
from ssd1b.adapters.adapter import Adapter
from ssd1b.engines.bundle import Bundle
from ssd1b.sampling.denoise import Known, Request, Row, advance, start
from ssd1b.sampling.preview import FILE as PREVIEW
from ssd1b.sampling.preview import Preview
from ssd1b.sampling.prompts import Prompts
from ssd1b.sampling.schedule import Schedule
from ssd1b.sampling.tables import SAMPLERS
from ssd1b.sampling.weights import parse
from ssd1b.sizes import Size

logger = logging.getLogger("ray.serve")

# C H W latent, h w the same positions of a preview, 3 red green blue


class Champion:
    """A painter (serve/painter.py) over an engine bundle."""

    def __init__(self, bundle: Bundle, model: str, version: str) -> None:
        self._bundle = bundle
        self._prompts, self._decode, self._engine = bundle.prompts, bundle.decode, bundle.engine()
        self._schedule = Schedule.read(bundle.folder)
        self._colours = Preview.load(bundle.folder) if (bundle.folder / PREVIEW).is_file() else self._through_decoder
        # Tokenizers refuse two threads at once; those that count are others than those that read, which takes longer.
        self._counted = Prompts.through(bundle.folder, bundle.text)
        self._counting, self._decoding = threading.Lock(), threading.Lock()
        self.slots = self._engine.slots
        self.offer = Offer(
            model=model,
            version=version,
            created=int(time.time()),
            sizes=bundle.sizes,
            samplers=tuple(SAMPLERS),
            prompt_tokens=bundle.prompt_tokens,
        )

    def count(self, text: str) -> int:
        with self._counting:
            return self._counted.count(parse(text))

    def begin(self, request: GenerationRequest, size: Size, slot: int, scale: float) -> list[Row]:
        rows = [
            Request(
                prompt=request.prompt,
                negative=request.negative_prompt or None,
                weighted=True,
                seed=seed,
                steps=request.steps,
                guidance=request.guidance,
                rescale=request.rescale,
                sampler=request.sampler,
                size=size,
                strength=request.start.strength if request.start else 1.0,
                slot=slot,
                scale=scale,
            )
            for seed in request.seeds
        ]
        known = [self._known(request.start, size)] * len(rows) if request.start else ()
        prompts = self._prompts.wearing(slot, scale)
        return start(prompts, rows, known, schedule=self._schedule, device=self._engine.device)

    def _known(self, given: Start, size: Size) -> Known:
        """Return the picture to start from as latents, once for all pictures of a request."""
        pixels_1CHW = torch.from_numpy(fitted(given.picture, size))[None]
        mean_1CHW, std_1CHW = self._bundle.encode(pixels_1CHW)
        mask = torch.from_numpy(fitted_mask(given.mask, size)) if given.mask else None
        return Known(mean_CHW=mean_1CHW[0], std_CHW=std_1CHW[0], mask_1HW=mask)

    def need(self, row: Row) -> Need:
        height, width, _ = row.group
        return Need(
            group=row.group,
            steps=len(row.table) - row.step,
            cells=height * width,
            rows=2 if row.guided else 1,
            adapted=row.request.slot != 0,
        )

    def advance(self, rows: Sequence[Row]) -> None:
        advance(self._engine, rows)

    def preview(self, row: Row) -> Callable[[], NDArray[np.uint8]]:
        latents_1CHW = row.denoised_CHW[None]  # a step makes new tensors, so this one stays as it is
        return lambda: np.asarray(self._colours(latents_1CHW)[0])

    def _through_decoder(self, latents_1CHW: torch.Tensor) -> torch.Tensor:
        """Return previews as `Preview` does, for a model that has no map of its VAE's colours: dearer, not worse."""
        with self._decoding:
            pictures_1HW3 = self._decode(latents_1CHW)
        return pictures_1HW3[:, LATENT_PIXELS // 2 :: LATENT_PIXELS, LATENT_PIXELS // 2 :: LATENT_PIXELS]

    def decode(self, rows: Sequence[Row]) -> list[NDArray[np.uint8]]:
        with self._decoding:
            pictures_BHW3 = self._decode(torch.stack([row.latents_CHW for row in rows]))
        return list(pictures_BHW3.numpy())

    def read_adapter(self, path: Path, name: str) -> Adapter:
        adapter, report = self._bundle.read_adapter(path, self._engine, name)
        logger.log(logging.WARNING if report.dropped else logging.INFO, "adapter %s: %s", adapter.name, report)
        return adapter

    def load_adapter(self, slot: int, parts: Sequence[tuple[Adapter, float]]) -> None:
        # One alone is weighed row by row; what several weigh is in their slot.
        adapter = parts[0][0] if len(parts) == 1 else Adapter.combine(parts)
        self._engine.load_adapter(slot, adapter)
        self._bundle.text.load_adapter(slot, adapter)
