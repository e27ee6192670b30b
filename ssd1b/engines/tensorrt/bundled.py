"""A bundle's plans: built for named GPUs when it is exported, for the GPU at hand where none fits, and opened.

Plans are made under the storage root and copied into the bundle, which then travels with them. A server looks into the
bundle first, then under the storage root, where one process of the cluster builds what is missing for all.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ssd1b.engines.engine import Engine
from ssd1b.engines.manifest import MANIFEST, layout_in, list_files
from ssd1b.engines.parts import DECODER, TOWERS, UNET
from ssd1b.engines.rising import Ascent, RisingDecoder, RisingEngine, RisingText
from ssd1b.engines.tensorrt.ensure import Ready, ensure_plans, load_plan, ready_plans
from ssd1b.engines.tensorrt.lease import Building
from ssd1b.engines.tensorrt.on_tensorrt import TensorRtDecoder, TensorRtEngine, TensorRtText
from ssd1b.engines.tensorrt.options import Options, Target
from ssd1b.engines.tensorrt.profiles import Range, Serving
from ssd1b.engines.text import AdaptedText
from ssd1b.models.places import read_json
from ssd1b.sizes import Size

PLANS = "plans"
"""The bundle's folder of them."""
MOST_SLOTS, MOST_RANK = 33, 128
"""That a plan is built for, or what the bundle has room for if that is more."""


def graphs_of(folder: Path) -> dict[str, Path]:
    """Return the graphs that a server runs on TensorRT, by the name that their plans go by."""
    return {Path(name).stem: folder / name for name in (UNET, DECODER, *TOWERS)}


def options_of(folder: Path, manifest: Mapping[str, Any], sizes: Sequence[Size], images: int = 16) -> Options:
    """Return how a bundle's plans are built. Who builds and who serves must say the same: it names the plans."""
    window = read_json(folder / "text_encoder" / "config.json")["max_position_embeddings"]
    slots, rank = manifest["slots"], manifest["rank"]
    return Options(
        Serving(
            sizes=tuple(sizes), images=images, usual_images=min(4, images), window=window,
            slots=Range(2, slots, max(slots, MOST_SLOTS)), rank=Range(1, rank, max(rank, MOST_RANK)),
        )
    )  # fmt: skip


def add_plans(folder: Path, root: Path, targets: Sequence[str], sizes: Sequence[Size], library: str = "auto") -> None:
    """Build a bundle's plans for GPU architectures ("sm80"), under root, and put them into the bundle.

    What is there already is not built again.

    Raises:
        ValueError: no library for a target, a failed build, or another process that is building the same.
    """
    manifest = json.loads((folder / MANIFEST).read_text())
    options = options_of(folder, manifest, sizes)
    entries = {entry["key"]: entry for entry in manifest["plans"]}
    for target in targets:
        made = ensure_plans(root, graphs_of(folder), Target(target, library), options)
        if isinstance(made, Building):
            raise ValueError(f"the plan of {made.graph} for {target} is being built by {made.by}: export again once it "
                             f"is done")  # fmt: skip
        for plan in made.plans.values():
            place = folder / PLANS / plan.folder.name
            if not place.exists():
                shutil.copytree(plan.folder, place)
            entries[plan.manifest["key"]] = plan.manifest
    manifest["plans"] = list(entries.values())
    manifest["files"] = {name: told for name, told in list_files(folder).items() if name != MANIFEST}
    aside = folder / f"{MANIFEST}.tmp"
    aside.write_text(json.dumps(manifest, indent=1))
    aside.replace(folder / MANIFEST)


class Plans:
    """What a server asks of the plans for the GPU at hand."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any], root: Path, sizes: Sequence[Size]) -> None:
        """root is the folder of plans under the storage root, which all replicas share.

        Raises:
            ValueError: no GPU here, or no library for it.
        """
        self.folder, self.manifest, self.root = folder, manifest, root
        self.target, self.options = Target.here(), options_of(folder, manifest, sizes)
        self.target.open()

    def there(self) -> Ready | None:
        """Return the plans if the bundle brought them, or if they are built already."""
        graphs = graphs_of(self.folder)
        return next(
            (
                found
                for place in (self.folder / PLANS, self.root)
                if (found := ready_plans(place, graphs, self.target, self.options))
            ),
            None,
        )

    def built(self) -> Ready | None:
        """Return the plans, building them unless another process is at it; then None."""
        made = ensure_plans(self.root, graphs_of(self.folder), self.target, self.options)
        return None if isinstance(made, Building) else made

    def ascent(self) -> Ascent[Ready]:
        """Return who waits for the plans, or knows them already."""
        return Ascent(self.there(), self.built)

    def unet(self, ready: Ready, *, slots: int, rank: int) -> Engine:
        """Open the UNet's plan."""
        layout = layout_in(self.manifest["lora"]["unet"])
        return TensorRtEngine(load_plan(ready.plans[Path(UNET).stem]), layout, slots=slots, rank=rank)

    def decoder(self, ready: Ready) -> TensorRtDecoder:
        """Open the VAE decoder's plan."""
        return TensorRtDecoder(load_plan(ready.plans[Path(DECODER).stem]))

    def text(self, ready: Ready, like: AdaptedText) -> TensorRtText:
        """Open the text towers' plans, as wide and as roomy as the ones that serve meanwhile."""
        loaded = [load_plan(ready.plans[Path(name).stem]) for name in TOWERS]
        layouts = [layout_in(part) for part in self.manifest["lora"]["text"]]
        return TensorRtText(
            list(zip(loaded, layouts, strict=True)),
            slots=like.slots,
            rank=like.rank,
            window=like.window,
            widths=like.widths,
            pooled=like.pooled,
        )


class Rise:
    """A bundle's parts on TensorRT: at once where the plans are there, otherwise when they are built."""

    def __init__(self, plans: Plans) -> None:
        self.plans = plans
        self.ascent = plans.ascent()

    def unet(self, first: Callable[[], Engine], room: Mapping[str, int]) -> Engine:
        """Return the UNet's engine; `first` opens what serves until then.

        Raises:
            ValueError: a plan that is there and does not load.
        """
        if self.ascent.there is not None:
            return self.plans.unet(self.ascent.there, **room)
        rising = RisingEngine(first())
        self.ascent.then(lambda ready: rising.change(self.plans.unet(ready, **room)))
        return rising

    def decoder(self, first: Callable[[], Callable[[Tensor], Tensor]]) -> Callable[[Tensor], Tensor]:
        """Return the VAE decoder (see `unet`)."""
        if self.ascent.there is not None:
            return self.plans.decoder(self.ascent.there)
        rising = RisingDecoder(first())
        self.ascent.then(lambda ready: rising.change(self.plans.decoder(ready)))
        return rising

    def text(self, first: AdaptedText) -> AdaptedText:
        """Return the text towers; `first` are the same in torch, which also say how wide they are."""
        rising = RisingText(first)
        self.ascent.then(lambda ready: rising.change(self.plans.text(ready, first)))
        return rising
