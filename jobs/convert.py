"""Convert a model between the layouts of the wild: python -m jobs.convert SOURCE OUT.

SOURCE is a model source: "nano", a folder, a .safetensors file, a hub id or a registry uri. OUT is a folder, written in
diffusers layout, or ends in .safetensors: then it is a single file in SGM layout.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from ssd1b import tracking
from ssd1b.command import finish
from ssd1b.models.convert import convert
from ssd1b.models.lineage import Evaluation

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def run(given: argparse.Namespace) -> dict[str, Any]:
    source, evaluation = given.source, None
    if source.startswith("models:/"):
        version = tracking.find(source)
        source = str(tracking.download(source))
        if numbers := version.tags.get("evaluation"):
            against = version.tags.get("evaluation_against", "its teacher")
            how = f"jobs.evaluate, run {version.tags.get('evaluation_run', 'unknown')}"
            evaluation = Evaluation(against=against, how=how, numbers=json.loads(numbers))
    options = {"dtype": DTYPES[given.dtype], "variant": given.variant, "donor": given.donor}
    return convert(source, given.out, **options, evaluation=evaluation)


def command(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="SOURCE", help="a model source")
    parser.add_argument("out", metavar="OUT", type=Path, help="a folder, or a file that ends in .safetensors")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32", help="of the weights written (default fp32)")
    parser.add_argument("--variant", help="a part of the weights' file names: fp16")
    parser.add_argument("--donor", metavar="SOURCE", help="who gives what a single file lacks: tokenizers, configs")
    given = parser.parse_args(arguments)
    finish(lambda: run(given))


if __name__ == "__main__":
    command()
