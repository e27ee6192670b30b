"""Describe the family: parameters, blocks, work and bytes of each UNet, and what was removed against its teacher.

python -m jobs.describe [NAME ...] [--size WIDTHxHEIGHT]; without a name, every member. A NAME may also be a
.safetensors file or a model folder: it is described by the names and shapes of its weights.
"""

import argparse

from ssd1b.command import finish
from ssd1b.models.describe import describe
from ssd1b.sizes import Size


def command(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="a member of the family, a file or a folder")
    parser.add_argument(
        "--size", metavar="WIDTHxHEIGHT", help="picture size of a call; default: what each was made for"
    )
    options = parser.parse_args(arguments)
    finish(lambda: describe(options.names, Size.parse(options.size) if options.size else None))


if __name__ == "__main__":
    command()
