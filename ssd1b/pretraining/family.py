"""All parts of the nano family in order, and the folder they make together."""

import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pyarrow.parquet as pq
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
from safetensors.torch import save_file

from ssd1b.command import show
from ssd1b.corpus import shipped
from ssd1b.home import home
from ssd1b.models.files import low_rank_delta
from ssd1b.pretraining.colours import preview_of
from ssd1b.pretraining.fit import Metrics
from ssd1b.pretraining.pictures import read_pictures
from ssd1b.pretraining.text import train_text
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

    everything = read_pictures()
    vae = train_vae(config.vae, everything, root / "vae", of("vae"))
    captions = [
        text for row in pq.read_table(shipped.PATH, columns=["captions"]).to_pylist() for text in row["captions"]
    ]
    towers = train_text(config.text, everything, captions, root / "text", of("text"))

    def inputs(part: UNetTraining):  # type: ignore[no-untyped-def]
        return prepare(read_pictures(styles=part.styles, subgroups=part.subgroups), vae, towers)

    base = train_unet(config.base, inputs(config.base), root / "base", of("base"), architecture=config.architecture)
    pipeline = StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=towers.first,
        text_encoder_2=towers.second,
        tokenizer=towers.tokenizer,
        tokenizer_2=towers.tokenizer,
        unet=base,
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
    preview_of(vae).save(out)
    for folder in ("tokenizer", "tokenizer_2"):  # what transformers before 5 reads
        for file in ("vocab.json", "merges.txt"):
            shutil.copy(root / "text" / "tokenizer" / file, out / folder)
    (out / "experts").mkdir(exist_ok=True)
    for name, part in config.experts.items():
        expert = train_unet(part, inputs(part), root / name, of(name), start=deepcopy(base))
        delta = out / "experts" / f"{name}.safetensors"
        save_file(low_rank_delta(base, expert, config.expert_rank), delta)
        delta.chmod(0o644)  # safetensors leaves 0600
    return {"family": str(out), "bytes": folder_bytes(out), "last": last}


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
