"""The gallery: the same prompts and seed through teacher, every stage's student, and the endpoint."""

import json
from pathlib import Path

from PIL import Image

from ssd1b.demo.endpoint import Served, ask
from ssd1b.evaluation.drawing import Model
from ssd1b.evaluation.sheet import sheet
from ssd1b.home import home
from ssd1b.recipes.demo import Demo
from ssd1b.sampling.denoise import Request, generate


def draw_local(config: Demo, source: str) -> list[Image.Image]:
    """Return a picture of every prompt from a model that is on disk."""
    model = Model.load(source)
    requests = [
        Request(prompt=prompt, seed=config.seed, steps=config.sampling_steps, guidance=config.guidance)
        for prompt in config.prompts
    ]
    return [Image.fromarray(made.numpy()) for made in generate(model.engine, model.prompts, model.decode, requests)]


def draw_served(config: Demo, lora: str | None) -> list[Served]:
    """Return a picture of every prompt from the endpoint; with the LoRA, in its style."""
    return [
        ask(
            config.endpoint,
            {
                "prompt": f"{prompt.split(',')[0]}, {config.lora_style} style" if lora else prompt,
                "size": config.size,
                "seed": config.seed,
                "num_inference_steps": config.sampling_steps,
                "guidance_scale": config.guidance,
                **({"lora": lora} if lora else {}),
            },
        )
        for prompt in config.prompts
    ]


def make_gallery(config: Demo) -> tuple[Path, dict[str, list[Served]]]:
    """Write the gallery and return where it lies and what the endpoint answered, plain and with the LoRA."""
    stages = home() / "distill" / config.run
    columns = {f"teacher\n{config.teacher}": draw_local(config, config.teacher)}
    for i, stage in enumerate(config.stages, 1):
        columns[f"stage {i}\n{stage}"] = draw_local(config, str(stages / f"stage-{stage}"))
    served = {"plain": draw_served(config, None), "lora": draw_served(config, config.lora)}
    columns["served"] = [answer.picture for answer in served["plain"]]
    columns[f"served + LoRA\n{config.lora_style}"] = [answer.picture for answer in served["lora"]]
    rows = list(zip(*columns.values(), strict=True))
    out = home() / "demo" / "gallery.png"
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet(config.prompts, list(columns), rows).save(out)
    return out, served


def write_results(results: dict[str, object], folder: str = "demo") -> Path:
    """Keep what every job said beside the gallery."""
    out = home() / folder / "results.json"
    out.write_text(json.dumps(results, indent=1, default=str))
    return out
