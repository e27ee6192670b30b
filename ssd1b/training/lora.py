"""Train a LoRA adapter for one style on top of a frozen model, with PEFT, and register it.

Loss: mean squared error of the predicted noise at a uniform timestep (DDPM, arXiv 2006.11239, algorithm 1).
"""

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from diffusers import UNet2DConditionModel
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ssd1b import tracking
from ssd1b.adapters.formats import read
from ssd1b.command import show
from ssd1b.corpus.latents import parts
from ssd1b.engines.checks import worst
from ssd1b.engines.graph import call, example_rows
from ssd1b.engines.on_torch import TorchEngine
from ssd1b.home import home
from ssd1b.models.files import load_unet
from ssd1b.models.local import folder_of
from ssd1b.recipes.lora import Lora
from ssd1b.sampling.decode import Decoder
from ssd1b.sampling.denoise import Request, generate
from ssd1b.sampling.prompts import Prompts
from ssd1b.sampling.tables import ALPHAS, TRAIN_STEPS

# N examples, B batch, C H W latent

SAME_OUTPUT = 1e-4
"""How far PEFT's and our reading of one adapter may differ in the predicted noise."""
MEASURED = 64
"""Examples, each at one fixed timestep, that the loss before and after is measured on."""


@dataclass(frozen=True)
class Examples:
    """The training set, in memory: a style is a few hundred pictures."""

    mean_NCHW: Tensor
    std_NCHW: Tensor
    time_ids_N6: Tensor
    captions: list[list[str]]

    def __len__(self) -> int:
        return len(self.captions)

    def latents(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Draw latents of the rows from the VAE's posterior."""
        mean_BCHW = self.mean_NCHW[rows]
        return mean_BCHW + self.std_NCHW[rows] * torch.randn(mean_BCHW.shape, generator=generator)


def read_examples(name: str, style: str) -> Examples:
    """Return all rows of a style.

    Raises:
        ValueError: the latents are missing (the message names jobs.encode), or hold no row of the style.
    """
    rows = [row for part in parts(name) for row in pq.read_table(part, partitioning=None).to_pylist()]
    chosen = [row for row in rows if row["style"] == style]
    if not chosen:
        styles = sorted({str(row["style"]) for row in rows})
        raise ValueError(f"latents {name!r} have no row of style {style!r}, only {', '.join(styles)}: "
                         f"encode them with jobs.encode, --set latents=NAME")  # fmt: skip
    shape = (4, chosen[0]["target_height"] // 8, chosen[0]["target_width"] // 8)

    def stack(column: str) -> Tensor:
        arrays = [np.frombuffer(row[column], np.float16).reshape(shape) for row in chosen]
        return torch.from_numpy(np.stack(arrays)).float()

    ids = ("original_height", "original_width", "crop_top", "crop_left", "target_height", "target_width")
    time_ids_N6 = torch.tensor([[float(row[key]) for key in ids] for row in chosen])
    return Examples(stack("mean"), stack("std"), time_ids_N6, [row["captions"] for row in chosen])


def train(config: Lora) -> dict[str, Any]:
    """Train, check, register; return what the job prints.

    Raises:
        ValueError: no such model or latents, or targets that name no layer.
    """
    examples = read_examples(config.latents, config.style)
    uri = tracking.find(config.model).uri if config.model.startswith("models:/") else config.model
    folder = tracking.download(uri) if uri.startswith("models:/") else folder_of(uri)
    unet, prompts = load_unet(str(folder)), Prompts.load(folder)
    torch.manual_seed(config.seed)
    model = adapted_model(unet, config)
    trainable, total = model.get_nb_trainable_parameters()
    share = trainable / (total - trainable)
    show(f"{len(examples)} pictures of {config.style!r}; {trainable:,} parameters, {share:.2%} of the model's")
    with tracking.run("lora", config.name, tags={"model": uri, "latents": config.latents}) as run:
        run.params(config)
        before = measured_loss(model, prompts, examples)
        for step, metrics in fit(config, model, prompts, examples):
            run.metrics(metrics, step)
            show(f"step {step}/{config.steps}: loss {metrics['loss']:.4f}")
        after = measured_loss(model, prompts, examples)
        run.metrics({"measured_loss": before}, 0)
        run.metrics({"measured_loss": after}, config.steps)
        out = save(model, home() / "adapters" / f"{config.base}-lora-{config.name}")
        engine = TorchEngine(load_unet(str(folder)))
        difference = check(out, folder, engine, prompts.limit + 2)
        run.metrics({"peft_difference": difference}, config.steps)
        run.picture(before_after(config, engine, prompts, Decoder.load(folder)), "before_after.png")
        name = f"{config.base}-lora-{config.name}"
        tags = {"kind": "lora", "base": config.base, "lora": config.name, "model": uri}
        version = tracking.register(name, out, run_id=run.run_id, alias="champion", tags=tags)
    return {
        "adapter": f"models:/{name}/{version}",
        "model": uri,
        "pictures": len(examples),
        "parameters": trainable,
        "share": round(share, 5),
        "loss_before": round(before, 5),
        "loss_after": round(after, 5),
        "peft_difference": difference,
        "run": run.run_id,
    }


def adapted_model(unet: UNet2DConditionModel, config: Lora) -> PeftModel:
    """Return the UNet, frozen, with trainable low-rank paths at the targets.

    Raises:
        ValueError: targets that name no layer of the UNet (PEFT's message lists them).
    """
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        target_modules=list(config.targets),
    )
    adapted = get_peft_model(unet, lora)
    lora.base_model_name_or_path = config.base  # only now: PEFT names the folder, which is a download of ours
    return adapted


def fit(config: Lora, model: PeftModel, prompts: Prompts, examples: Examples) -> Iterator[tuple[int, dict[str, float]]]:
    """Train the model in place, and yield (step, metrics) every so often."""
    accelerator = Accelerator()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, config.steps))
    model, optimizer = accelerator.prepare(model, optimizer)
    generator = torch.Generator().manual_seed(config.seed)
    losses = []
    for step in range(1, config.steps + 1):
        rows = torch.randint(len(examples), (config.batch,), generator=generator)
        timestep_B = torch.randint(TRAIN_STEPS, (config.batch,), generator=generator)
        loss = noise_loss(model, prompts, examples, rows, timestep_B, generator, config.unprompted)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step % config.report_every == 0 or step == config.steps:
            yield step, {"loss": float(np.mean(losses)), "lr": optimizer.param_groups[0]["lr"]}
            losses = []


def learning_rate(step: int, steps: int) -> float:
    """Return the share of the peak rate: linear warm-up over a twentieth of the steps, then a cosine to zero."""
    warmup = max(1, steps // 20)
    return min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * min(step, steps) / steps))


def noise_loss(
    model: PeftModel,
    prompts: Prompts,
    examples: Examples,
    rows: Tensor,
    timestep_B: Tensor,
    generator: torch.Generator,
    unprompted: float,
) -> Tensor:
    """Return the mean squared error of the predicted noise on rows of the examples."""
    latents_BCHW = examples.latents(rows, generator)
    noise_BCHW = torch.randn(latents_BCHW.shape, generator=generator)
    alpha_B111 = torch.from_numpy(ALPHAS).float()[timestep_B][:, None, None, None]
    noisy_BCHW = alpha_B111.sqrt() * latents_BCHW + (1 - alpha_B111).sqrt() * noise_BCHW
    picks = torch.randint(1 << 30, (len(rows),), generator=generator).tolist()
    captions = [
        examples.captions[i][pick % len(examples.captions[i])] for i, pick in zip(rows.tolist(), picks, strict=True)
    ]
    text_BTD, pooled_BE = prompts.encode(captions)
    prompted_B = (torch.rand(len(rows), generator=generator) >= unprompted).float()
    text_BTD, pooled_BE = text_BTD * prompted_B[:, None, None], pooled_BE * prompted_B[:, None]
    inputs = (noisy_BCHW, timestep_B.float(), text_BTD, pooled_BE, examples.time_ids_N6[rows])
    device = next(model.parameters()).device
    return F.mse_loss(call(model, *(tensor.to(device) for tensor in inputs)), noise_BCHW.to(device))


@torch.no_grad()
def measured_loss(model: PeftModel, prompts: Prompts, examples: Examples) -> float:
    """Return the loss on fixed rows, noise and evenly spaced timesteps, so that before and after compare."""
    rows = torch.arange(MEASURED) % len(examples)
    timestep_B = torch.linspace(0, TRAIN_STEPS - 1, MEASURED).long()
    return noise_loss(model, prompts, examples, rows, timestep_B, torch.Generator().manual_seed(1), 0.0).item()


def save(model: PeftModel, folder: Path) -> Path:
    """Write the adapter in PEFT layout, in place of an older one, and return the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's blank form of a model card
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors leaves 0600, which a shared file system's other users cannot read
    return folder


def check(adapter_folder: Path, model_folder: Path, engine: TorchEngine, tokens: int) -> float:
    """Load the saved adapter by PEFT and into slot 1 of the engine; return the worst difference of their outputs."""
    adapter, report = read(adapter_folder, engine.layout.shapes)
    show(f"adapter {adapter.name}: {report}")
    assert not report.dropped, report
    engine.load_adapter(1, adapter)
    rows = example_rows(engine.unet, tokens)
    slotted = (*rows[:5], torch.ones_like(rows[5]), rows[6])
    peft = PeftModel.from_pretrained(load_unet(str(model_folder)), adapter_folder).eval()
    with torch.no_grad():
        theirs = call(peft, *rows[:5])
    difference = worst(engine(*slotted), theirs)
    assert difference < SAME_OUTPUT, f"PEFT and this engine disagree by {difference}"
    return difference


def before_after(config: Lora, engine: TorchEngine, prompts: Prompts, decode: Decoder) -> Image.Image:
    """Draw the prompts without the adapter (above) and with it (below), at equal seeds."""
    strips = []
    for slot in (0, 1):
        requests = [
            Request(prompt=prompt, seed=i, steps=config.sampling_steps, slot=slot)
            for i, prompt in enumerate(config.prompts)
        ]
        strips.append(torch.cat(list(generate(engine, prompts, decode, requests)), dim=1))
    return Image.fromarray(torch.cat(strips).numpy())
