"""All parts of the nano family in order, and the folder they make together."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import save_file

from ssd1b.command import show
from ssd1b.corpus import shipped
from ssd1b.home import home
from ssd1b.models.files import load_pipeline, low_rank_delta
from ssd1b.pretraining.colours import preview_of
from ssd1b.pretraining.fit import Metrics
from ssd1b.pretraining.pictures import Pictures, before, read_pictures
from ssd1b.pretraining.text import TextTowers, train_text, write_vocabulary
from ssd1b.pretraining.unet import BETA_END, BETA_START, prepare, train_unet
from ssd1b.pretraining.vae import train_vae
from ssd1b.recipes.pretrain import Pretrain, UNetTraining

Report = Callable[[str, int, Metrics], None]


def pretrain(config: Pretrain, report: Report) -> dict[str, object]:
    """Train what is not yet trained and write the family to `config.out`; return what was made.

    report gets the part, the step and the means of its metrics about every 10 seconds.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    root = home() / "pretrain" / config.name
    out = root / config.out
    last: dict[str, Metrics] = {}

    def of(part: str) -> Callable[[int, Metrics], None]:
        def told(step: int, metrics: Metrics) -> None:
            last[part] = metrics
            show(f"{part} {step}: " + " ".join(f"{name}={value:.4g}" for name, value in metrics.items()))
            report(part, step, metrics)

        return told

    parts = trained(config, root, of)
    pipeline = StableDiffusionXLPipeline(
        vae=parts.vae,
        text_encoder=parts.towers.first,
        text_encoder_2=parts.towers.second,
        tokenizer=parts.towers.tokenizer,
        tokenizer_2=parts.towers.tokenizer,
        unet=parts.unet,
        scheduler=EulerDiscreteScheduler(
            beta_start=BETA_START,
            beta_end=BETA_END,
            beta_schedule="scaled_linear",
            timestep_spacing="leading",
            steps_offset=1,
        ),
        add_watermarker=False,
    )
    deepcopy(pipeline).to(torch.float16).save_pretrained(out)
    preview_of(parts.vae).save(out)
    for folder in ("tokenizer", "tokenizer_2"):  # what transformers before 5 reads
        write_vocabulary(parts.towers.tokenizer, out / folder)
    (out / "experts").mkdir(exist_ok=True)
    for name, part in config.experts.items():
        inputs = prepare(pictures_of(part), parts.vae, parts.towers)
        expert = train_unet(part, inputs, root / name, of(name), start=deepcopy(parts.unet))
        delta = out / "experts" / f"{name}.safetensors"
        save_file(low_rank_delta(parts.unet, expert, config.expert_rank), delta)
        delta.chmod(0o644)  # safetensors leaves 0600
    return {"family": str(out), "bytes": folder_bytes(out), "last": last}


@dataclass(frozen=True)
class Parts:
    """A family without experts."""

    vae: AutoencoderKL
    towers: TextTowers
    unet: UNet2DConditionModel


def taken(source: str) -> Parts:
    """Return the parts of a source (ssd1b.models.files), all in float32."""
    pipeline = load_pipeline(source)
    towers = TextTowers(pipeline.tokenizer, pipeline.text_encoder, pipeline.text_encoder_2)
    return Parts(pipeline.vae, towers, pipeline.unet)


def trained(config: Pretrain, root: Path, of: Callable[[str], Callable[[int, Metrics], None]]) -> Parts:
    """Return the trained parts; each goes on from its newest checkpoint, else from the recipe's start."""
    start = taken(config.start) if config.start else None
    drawings = read_pictures()
    vae = train_vae(
        config.vae, before(drawings, config.vae.backdrops, one_each=True), root / "vae", of("vae"),
        start=start.vae if start else None,
    )  # fmt: skip
    seen = before(drawings, config.text.backdrops, one_each=True)
    rows = pq.read_table(shipped.PATH, columns=["captions"]).to_pylist()
    held = [text for row in rows for text in row["captions"]]
    captions = held + [text for several in seen.captions[len(drawings) :] for text in several]
    towers = train_text(config.text, seen, captions, root / "text", of("text"), start=start.towers if start else None)
    inputs = prepare(pictures_of(config.base), vae, towers)
    unet = train_unet(
        config.base,
        inputs,
        root / "base",
        of("base"),
        start=start.unet if start else None,
        architecture=config.architecture,
    )
    return Parts(vae, towers, unet)


def pictures_of(part: UNetTraining) -> Pictures:
    """Return what a UNet is shown."""
    drawings = read_pictures(styles=part.styles, subgroups=part.subgroups)
    return before(drawings, part.backdrops, part.held_out)


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
