"""Where in the model a layer's name in an adapter's file leads: UNet or text tower, and which layer there."""

from collections.abc import Iterable, Mapping, Sequence

from ssd1b.adapters.adapter import Shapes
from ssd1b.adapters.blockmap import BlockMap, MadeFor

UNET_PREFIXES = ("unet.", "lora_unet_", "diffusion_model.")
TOWER_PREFIXES = {
    "text_encoder_2.": "text_encoder_2",
    "text_encoder.": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_te1_": "text_encoder",
    "lora_te_": "text_encoder",
}
TOWERS = ("text_encoder", "text_encoder_2")
INSIDE_TOWER = ("text_model.", "text_model_", "encoder.layers.")
"""How the names of a tower's layers begin; PEFT writes them without saying which tower."""
UNKNOWN = "name a layer that this model does not adapt"
NO_ROOM = "change a convolution, for which this engine has no room"
NO_TEXT = "change a text tower, which this engine keeps as it is"
CARVED = "belong to a block that was carved out of this model"


class Places:
    """The layers of one model that an adapter may change, by all their names."""

    unknown = (UNKNOWN,)
    """Reasons that say nothing of why there is no such layer."""

    def __init__(self, shapes: Shapes, text: Sequence[Shapes] = (), blocks: BlockMap | None = None) -> None:
        self.parts: dict[str, Shapes] = {"unet": shapes, **dict(zip(TOWERS, text, strict=False))}
        """Part of the model -> its layers."""
        self.blocks = blocks
        self.made_for = "itself"
        own = blocks.own_names(shapes) if blocks else plain_names(shapes)
        self.names: dict[str, Mapping[str, str]] = {"unet": own}
        self.names |= {tower: plain_names(self.parts[tower]) for tower in TOWERS if tower in self.parts}

    def decide(self, names: Iterable[str], made_for: MadeFor) -> None:
        """Choose whose blocks the file numbers.

        Raises:
            ValueError: the base's, and this model has no base.
        """
        if self.blocks is None or self.blocks.kept is None:
            if made_for == "base":
                raise ValueError("made_for 'base': this model was not carved from another that is known; give 'itself'")
            return
        inside = [bare for name in names for part, bare in [split(name)] if part == "unet"]
        if made_for == "base" or (made_for == "auto" and any(map(self.blocks.only_in_base, inside))):
            self.made_for = "base"
            self.names["unet"] = self.blocks.base_names(self.parts["unet"])

    def find(self, name: str, size: Sequence[int]) -> tuple[str, str] | str:
        """Return (part of the model, layer path), or why there is none. size is that of the layer's A, as in a file."""
        part, bare = split(name)
        if part == "unet":
            if bare in self.names["unet"]:
                return part, self.names["unet"][bare]
            if self.made_for == "base" and self.blocks is not None and self.blocks.is_carved(bare):
                return CARVED
            return UNKNOWN
        towers = [tower for tower in TOWERS if tower in self.parts and part in ("", tower)]
        if not towers:
            return NO_TEXT
        fitting = [
            (tower, path)
            for tower in towers
            if (path := self.names[tower].get(bare))
            and (part or len(size) < 2 or size[1] == self.parts[tower][path].inside)
        ]
        return fitting[0] if fitting else UNKNOWN


def split(name: str) -> tuple[str, str]:
    """Return (part of the model, "" for a tower that is not named; the layer's name there)."""
    name = name.removeprefix("base_model.model.")
    for prefix, tower in TOWER_PREFIXES.items():
        if name.startswith(prefix):
            return tower, bare_text(name.removeprefix(prefix))
    if name.startswith(INSIDE_TOWER):
        return "", bare_text(name)
    for prefix in UNET_PREFIXES:
        name = name.removeprefix(prefix)
    return "unet", name


def bare_text(name: str) -> str:
    return name.removeprefix("text_model.").removeprefix("text_model_")


def plain_names(paths: Iterable[str]) -> dict[str, str]:
    """Return diffusers' names, with dots and with underscores -> path."""
    return {name: path for path in paths for name in (path, path.replace(".", "_"))}
