"""Denoising row by row: a batch of rows at unlike steps of unlike samplers goes one step further.

A row is one picture in the making. `advance` is all that a server's step scheduler needs; `generate` is the plain loop
over it that jobs use. Every row has its own generator, and its text is never padded to another row's length, so a
picture does not depend on its neighbours. Rows may live on any device; noise is drawn on the CPU, so that the same
seed gives the same picture everywhere.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssd1b.sampling.guidance import guide
from ssd1b.sampling.prompts import Prompts, Text
from ssd1b.sampling.rows import Kept, Known, Request, Row, first_latents, noised, unit_noise
from ssd1b.sampling.schedule import SDXL, Schedule
from ssd1b.sampling.step import INPUTS, MEMORY
from ssd1b.sampling.tables import table
from ssd1b.sizes import Size, time_ids

__all__ = ["Known", "Predict", "Request", "Row", "advance", "generate", "micro_conditioning", "start"]

# B rows, N engine rows (conditional, then the guided ones again without prompt), G guided rows, C H W latent,
# T text tokens, D text width, E pooled width, M what a row remembers, K what a step mixes

Predict = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""An engine's call (`ssd1b.engines.engine.Engine`): latents, timestep, text, pooled, time ids, slot, scale to noise."""


def start(
    prompts: Prompts,
    requests: Sequence[Request],
    known: Sequence[Known | None] = (),
    *,
    schedule: Schedule = SDXL,
    device: torch.device | str = "cpu",
) -> list[Row]:
    """Return rows at their first step, on a device.

    known are pictures to start from, one or None for each request; without any, all start from noise. The schedule is
    the model's. The first latents are those of diffusers for the same seed: a CPU generator's randn of (1, C, H, W).

    Raises:
        ValueError: a prompt is too long, or holds a weight that cannot be; a strength below 1 without a picture; a
            picture of another size than its request's.
    """
    assert len(known) in (0, len(requests)), f"{len(known)} pictures to start from for {len(requests)} requests"
    given = [request.read(request.negative) for request in requests if request.negative is not None]
    texts = prompts.read([*(request.read(request.prompt) for request in requests), *given])
    negatives = iter(texts[len(requests) :])
    rows = []
    for request, text, picture in zip(requests, texts, known or [None] * len(requests), strict=False):
        negative = None if request.negative is None else next(negatives)
        # what guidance does not ask for must not lengthen the prompt
        text, negative = alike(prompts, text, negative if request.guidance > 1 else None)
        generator = torch.Generator("cpu").manual_seed(request.seed)
        steps = table(request.sampler, request.steps, schedule, request.skip if picture else 0)
        latents_CHW, kept = first_latents(request, steps, picture, generator)
        unknown_CHW = torch.zeros_like(latents_CHW, device=device)
        rows.append(
            Row(
                request=request,
                table=steps,
                text_TD=text.text_TD.to(device),
                pooled_E=text.pooled_E.to(device),
                negative_TD=negative.text_TD.to(device),
                negative_pooled_E=negative.pooled_E.to(device),
                generator=generator,
                memory=[latents_CHW.to(device), *[unknown_CHW] * (len(MEMORY) - 1)],
                kept=kept and Kept(*(tensor.to(device) for tensor in kept)),
            )
        )
    return rows


def alike(prompts: Prompts, text: Text, negative: Text | None) -> tuple[Text, Text]:
    """Return both in equally many tokens; the shorter gets windows of the empty prompt. None is no prompt."""
    if negative is None:
        return text, prompts.unconditional(len(text.text_TD))
    tokens = max(len(text.text_TD), len(negative.text_TD))
    return prompts.longer(text, tokens), prompts.longer(negative, tokens)


def advance(engine: Predict, rows: Sequence[Row]) -> None:
    """Take every row one call further, in place, with one engine call.

    The rows must not be done, and must be of one group and on one device; all else may differ. The engine sees one row
    for each, and one more for each guided one.
    """
    assert len({row.group for row in rows}) == 1, "padding would make a picture depend on its neighbours"
    device = rows[0].latents_CHW.device
    mix_BMK = np.stack([row.table.mix_SMK[row.step] for row in rows])
    # all numbers of a step go to the device as one array: training step, input scale, what is told below, the mix
    told = [(r.guidance, r.slot, r.scale, *micro_conditioning(r.size)) for r in (row.request for row in rows)]
    call_B2 = np.stack([row.table.call_S2[row.step] for row in rows])
    numbers = np.concatenate([call_B2, np.array(told, dtype=np.float32), mix_BMK.reshape(len(rows), -1)], axis=1)
    numbers_BX = torch.from_numpy(numbers).to(device)
    timestep_B, input_B, guidance_B, slot_B, scale_B = numbers_BX[:, :5].unbind(1)

    latents_BCHW = torch.stack([row.latents_CHW for row in rows])
    guided = [i for i, row in enumerate(rows) if row.guided]
    where_G = slice(None) if len(guided) == len(rows) else torch.tensor(guided, dtype=torch.long, device=device)

    def asked(of_rows: Tensor) -> Tensor:
        return torch.cat([of_rows, of_rows[where_G]]) if guided else of_rows.contiguous()

    noise_NCHW = engine(
        asked(latents_BCHW * input_B[:, None, None, None]),
        asked(timestep_B),
        torch.stack([row.text_TD for row in rows] + [rows[i].negative_TD for i in guided]),
        torch.stack([row.pooled_E for row in rows] + [rows[i].negative_pooled_E for i in guided]),
        asked(numbers_BX[:, 5:11]),
        asked(slot_B.long()),
        asked(scale_B),
    ).to(device)
    noise_BCHW = guide(noise_NCHW, guided, where_G, guidance_B, [row.request.rescale for row in rows])
    memory = mixed(mix_BMK, numbers_BX[:, 11:], rows, latents_BCHW, noise_BCHW)
    for i, row in enumerate(rows):
        row.memory = [was if now is None else now[i] for was, now in zip(row.memory, memory, strict=True)]
        row.step += 1
        if row.kept is not None:
            row.memory[0] = painted_over(row.latents_CHW, row.kept, row)


def mixed(
    mix_BMK: NDArray[np.float32], mix_BX: Tensor, rows: Sequence[Row], latents_BCHW: Tensor, noise_BCHW: Tensor
) -> list[Tensor | None]:
    """Return what the rows remember after the step, in the order of MEMORY; None is what no row's sampler remembers.

    mix_BMK tells on the CPU which coefficients are not zero; mix_BX are the same where the rows are. Products are added
    one by one in a fixed order, each rounded: then a row's bits do not depend on the batch, as those of a matrix
    product may. A coefficient that is zero for every row costs nothing, and one that is zero for a row adds nothing.
    """
    used_MK = np.asarray(mix_BMK.any(axis=0))

    def column(k: int) -> Tensor:
        match INPUTS[k]:
            case "latent":
                return latents_BCHW
            case "prediction":
                return noise_BCHW
            case "fresh":
                return fresh_noise(rows).to(latents_BCHW.device)
            case _:
                return torch.stack([row.memory[k] for row in rows])

    columns = {k: column(k) for k in np.flatnonzero(used_MK.any(axis=0)).tolist()}
    memory: list[Tensor | None] = []
    for m, used_K in enumerate(used_MK):
        total: Tensor | None = None
        for k in np.flatnonzero(used_K).tolist():
            product = mix_BX[:, m * len(INPUTS) + k, None, None, None] * columns[k]
            total = product if total is None else total.add_(product)
        memory.append(total)
    return memory


def fresh_noise(rows: Sequence[Row]) -> Tensor:
    """Draw what ancestral samplers add in this step; a row that adds nothing leaves its generator alone."""
    shape = rows[0].latents_CHW.shape
    return torch.stack(
        [unit_noise(shape, row.generator) if row.table.draws(row.step) else torch.zeros(shape) for row in rows]
    )


def painted_over(latents_CHW: Tensor, kept: Kept, row: Row) -> Tensor:
    """Return latents with what the mask keeps as the known picture has it, at the next call's noise level."""
    known_CHW = noised(kept.clean_CHW, kept.noise_CHW, row.table, row.step)
    return (1 - kept.mask_1HW) * known_CHW + kept.mask_1HW * latents_CHW


def micro_conditioning(size: Size) -> tuple[int, int, int, int, int, int]:
    """Ask for an uncropped picture that was of this size to begin with."""
    return time_ids(size, 0, 0, size)


def generate(
    engine: Predict,
    prompts: Prompts,
    decode: Callable[[Tensor], Tensor],
    requests: Sequence[Request],
    batch: int = 8,
    *,
    schedule: Schedule = SDXL,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return the pictures of the requests, uint8 (N, height, width, 3), made `batch` at a time.

    All requests must ask for one size. The rows lie on a device, best the engine's. decode maps latents_BCHW to such
    pictures (`Decoder`, `Bundle.decode`). Prompts of unlike windows make their steps apart.
    """
    pictures: list[Tensor] = []
    for i in range(0, len(requests), batch):
        rows = start(prompts, requests[i : i + batch], schedule=schedule, device=device)
        made: dict[int, Tensor] = {}
        for group in dict.fromkeys(row.group for row in rows):
            members = [n for n, row in enumerate(rows) if row.group == group]
            while running := [rows[n] for n in members if not rows[n].done]:
                advance(engine, running)
            made |= zip(members, decode(torch.stack([rows[n].latents_CHW for n in members])), strict=True)
        pictures += [made[n] for n in range(len(rows))]
    return torch.stack(pictures)
