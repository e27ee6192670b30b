"""Carve a smaller student out of a model: python -m jobs.carve TEACHER --to ssd-1b, or --params 0.74e9.

TEACHER is a model source: "nano", a folder, a .safetensors file, a hub id or a registry uri. With --to the declared
blocks stay, with --params those that are missed most, measured on pictures. The student is not trained yet: give its
keep map to jobs.distill with --set student=.../keep_map.json.
"""

import argparse
import re

import torch

from ssd1b import tracking
from ssd1b.command import finish
from ssd1b.pruning.carving import Carving, run

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def config(arguments: list[str] | None = None) -> Carving:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", metavar="TEACHER", help="a model source")
    parser.add_argument("--to", metavar="MEMBER", help="a member of the family, or a keep_map.json")
    parser.add_argument("--params", metavar="N", type=float, help="most parameters of the student's UNet: 0.74e9")
    parser.add_argument("--name", help="of the folder under <home>/carved; default: made of teacher and target")
    parser.add_argument("--latents", metavar="NAME", help="calibrate on <home>/latents/NAME, not on the shipped corpus")
    parser.add_argument("--pictures", type=int, default=32, help="calibration pictures (default 32)")
    parser.add_argument("--seed", type=int, default=0, help="of the calibration noise (default 0)")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32", help="of the weights (default fp32)")
    given = parser.parse_args(arguments)
    target = given.to or f"{(given.params or 0) / 1e6:.4g}M"
    return Carving(
        teacher=given.teacher,
        student=given.to,
        params=None if given.params is None else int(given.params),
        name=given.name or re.sub(r"[^\w.+-]+", "-", f"{given.teacher}-{target}").strip("-"),
        latents=given.latents,
        pictures=given.pictures,
        seed=given.seed,
        dtype=DTYPES[given.dtype],
        device="cuda" if torch.cuda.is_available() else "cpu",
    )


def command(arguments: list[str] | None = None) -> None:
    carving = config(arguments)
    finish(lambda: run(carving, tracking.download))


if __name__ == "__main__":
    command()
