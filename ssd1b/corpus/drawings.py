"""Vector drawings to pixels: iconify sets (one JSON of SVG bodies per npm package), rasterised by resvg."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_set(node_modules: Path, package: str) -> dict[str, Any]:
    """Return the icons of an iconify package: {"icons": {name: {"body": ...}}, "width": ..., ...}.

    Raises:
        ValueError: the package is not installed.
    """
    icons: dict[str, Any] = json.loads((package_folder(node_modules, package) / "icons.json").read_text())
    return icons


def package_folder(node_modules: Path, package: str) -> Path:
    folder = node_modules / package
    if not folder.is_dir():
        raise ValueError(f"no {package} under {node_modules}: run `make corpus`, which installs it with npm")
    return folder


def version_of(node_modules: Path, package: str) -> str:
    version: str = json.loads((package_folder(node_modules, package) / "package.json").read_text())["version"]
    return version


def render(
    icons: Mapping[str, Any], name: str, side: int, *, colour: str = "#000", background: str = "#ffffff"
) -> bytes:
    """Return an icon as PNG bytes, `side` x `side` pixels; `colour` is what the set leaves open (currentColor).

    Raises:
        ValueError: the body is not valid SVG.
    """
    import resvg_py  # only this source needs it: pip install ssd1b[corpus]

    icon = icons["icons"][name]
    width, height = (icon.get(key, icons.get(key, 16)) for key in ("width", "height"))
    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{box}" width="{side}" height="{side}" color="{colour}">{icon["body"]}</svg>'
    )
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, background=background, skip_system_fonts=True))
