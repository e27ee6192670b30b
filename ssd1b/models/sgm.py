"""The names of Stable Diffusion's own code (ldm, later sgm) for the UNet and the VAE, as paths of modules.

Single-file checkpoints carry these names. Both maps are pure functions of a model's anatomy: the blocks of the UNet are
numbered through, so a name depends on how many layers every level has. A mid block of one resnet is `middle_block.0`
alone, as SSD-1B's published file has it; of no mid block there are no names at all, which is how ComfyUI writes and
recognises KOALA-700M.
"""

from collections.abc import Iterable

from ssd1b.family.keep import KeepMap
from ssd1b.models.pairs import Pair, pairs_of

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "time_embedding.cond_proj": "time_embed.cond_proj",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
MID_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OLD_ATTENTION = {"group_norm": "group_norm", "to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
"""What diffusers called the VAE's attention before 0.18; the SD-1.5 line's folders still do."""


def unet_modules(anatomy: KeepMap) -> dict[str, str]:
    """Return diffusers path -> SGM path for all modules of a UNet that hold weights."""
    paths = dict(ENDS)

    def resnet(ours: str, theirs: str) -> None:
        paths.update({f"{ours}.{a}": f"{theirs}.{b}" for a, b in RESNET.items()})

    n = 1
    for i, block in enumerate(anatomy.down):
        for j, layer in enumerate(block.layers):
            resnet(f"down_blocks.{i}.resnets.{j}", f"input_blocks.{n}.0")
            if layer.blocks is not None:
                paths[f"down_blocks.{i}.attentions.{j}"] = f"input_blocks.{n}.1"
            n += 1
        if i < len(anatomy.down) - 1:
            paths[f"down_blocks.{i}.downsamplers.0.conv"] = f"input_blocks.{n}.0.op"
            n += 1
    if anatomy.mid is not None:
        resnet("mid_block.resnets.0", "middle_block.0")
        if anatomy.mid:
            paths["mid_block.attentions.0"] = "middle_block.1"
            resnet("mid_block.resnets.1", "middle_block.2")
    n = 0
    for i, block in enumerate(anatomy.up):
        for j, layer in enumerate(block.layers):
            resnet(f"up_blocks.{i}.resnets.{j}", f"output_blocks.{n}.0")
            if layer.blocks is not None:
                paths[f"up_blocks.{i}.attentions.{j}"] = f"output_blocks.{n}.1"
            if j == len(block.layers) - 1 and i < len(anatomy.up) - 1:
                slot = 1 if layer.blocks is None else 2
                paths[f"up_blocks.{i}.upsamplers.0.conv"] = f"output_blocks.{n}.{slot}.conv"
            n += 1
    return paths


def vae_modules(levels: int, layers: int) -> dict[str, str]:
    """Return diffusers path -> ldm path for all modules of a VAE; ldm counts the way up from the picture's side."""
    paths = {name: name for name in ("quant_conv", "post_quant_conv")}

    def resnet(ours: str, theirs: str) -> None:
        paths[ours] = theirs
        paths[f"{ours}.conv_shortcut"] = f"{theirs}.nin_shortcut"

    for half in ("encoder", "decoder"):
        paths |= {f"{half}.{a}": f"{half}.{b}" for a, b in (("conv_in",) * 2, ("conv_out",) * 2)}
        paths[f"{half}.conv_norm_out"] = f"{half}.norm_out"
        for j in range(2):
            resnet(f"{half}.mid_block.resnets.{j}", f"{half}.mid.block_{j + 1}")
        for ours, theirs in MID_ATTENTION.items():
            paths[f"{half}.mid_block.attentions.0.{ours}"] = f"{half}.mid.attn_1.{theirs}"
    for i in range(levels):
        for j in range(layers):
            resnet(f"encoder.down_blocks.{i}.resnets.{j}", f"encoder.down.{i}.block.{j}")
        paths[f"encoder.down_blocks.{i}.downsamplers.0.conv"] = f"encoder.down.{i}.downsample.conv"
        for j in range(layers + 1):
            resnet(f"decoder.up_blocks.{i}.resnets.{j}", f"decoder.up.{levels - 1 - i}.block.{j}")
        paths[f"decoder.up_blocks.{i}.upsamplers.0.conv"] = f"decoder.up.{levels - 1 - i}.upsample.conv"
    return paths


def unet_pairs(names: Iterable[str], anatomy: KeepMap) -> list[Pair]:
    """Return the pairs of a UNet's tensors."""
    return pairs_of(names, unet_modules(anatomy))


def vae_pairs(names: Iterable[str], levels: int, layers: int) -> list[Pair]:
    """Return the pairs of a VAE's tensors; ldm keeps the matrices of its attention as kernels of 1 x 1."""
    attention = [f"{half}.mid_block.attentions.0." for half in ("encoder", "decoder")]
    matrices = [path + part for path in attention for part in MID_ATTENTION if part != "group_norm"]
    return pairs_of(names, vae_modules(levels, layers), matrices)


def old_vae_pairs(names: Iterable[str]) -> list[Pair]:
    """Return the pairs of a VAE's tensors and their names in diffusers before 0.18."""
    attention = [f"{half}.mid_block.attentions.0." for half in ("encoder", "decoder")]
    old = {path + ours: path + theirs for path in attention for ours, theirs in OLD_ATTENTION.items()}
    return pairs_of(names, {name.rpartition(".")[0]: name.rpartition(".")[0] for name in names} | old)
