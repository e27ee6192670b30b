"""jobs.convert: a model in one form made into another, with its lineage where it has one."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ssd1b.command import show
from ssd1b.models import lineage
from ssd1b.models.detect import member_of
from ssd1b.models.files import load_pipeline, resolve, save_folder, save_single_file


def convert(
    source: str,
    out: Path,
    *,
    dtype: torch.dtype = torch.float32,
    variant: str | None = None,
    donor: str | None = None,
    evaluation: lineage.Evaluation | None = None,
) -> dict[str, Any]:
    """Write a source as a folder in diffusers layout, or, if `out` ends in .safetensors, as a single SGM file.

    dtype: of the weights; float16 and bfloat16 round. variant: see save_folder. donor: see load_pipeline. evaluation:
    what the model card is to tell besides what it told.

    Raises:
        ValueError: no such source, or `out` exists already.
    """
    if out.exists():
        raise ValueError(f"{out} exists: give another name, or remove it")
    pipeline = load_pipeline(source, dtype, donor)
    single = out.suffix == ".safetensors"
    if single and variant:
        raise ValueError(f"--variant {variant} names the files of a folder; {out} is a single file: leave one out")
    where = Path(resolve(source)[0])
    told = lineage.read(where) if where.is_dir() else None
    if single:
        save_single_file(pipeline, out)
    else:
        save_folder(pipeline, out, variant=variant)
        if told:
            lineage.write(replace(told, evaluation=evaluation or told.evaluation), out)
        elif (where / lineage.CARD).is_file():
            shutil.copyfile(where / lineage.CARD, out / lineage.CARD)
    parameters = sum(weight.numel() for weight in pipeline.unet.parameters())
    size = out.stat().st_size if single else sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    name = member_of(pipeline.unet.config)
    show(
        f"{source} ({name or 'a student of its own'}, {parameters:,} UNet parameters) -> {out}, {size / 2**20:,.1f} MiB"
    )
    return {"source": source, "out": str(out), "layout": "sgm" if single else "diffusers", "member": name,
            "parameters": parameters, "dtype": str(dtype).removeprefix("torch."), "bytes": size}  # fmt: skip
