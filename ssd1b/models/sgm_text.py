"""The names of the text towers in single-file checkpoints.

CLIP-L carries transformers' names with `text_model.` in front. OpenCLIP's tower has names of its own: queries, keys and
values in one matrix, and the projection transposed. Of transformers' own files some have `text_model.` and some have
not (5.6 dropped it from CLIPTextModel), so both are read; what is written has it, which every version reads.
"""

from collections.abc import Iterable, Mapping

from ssd1b.models.pairs import Pair

PREFIX = "text_model."
PROJECTION = "text_projection.weight"
LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def clip_pairs(names: Iterable[str], found: Iterable[str] | None = None) -> list[Pair]:
    """Return the pairs of a CLIP tower's tensors and transformers' names: with `text_model.`, or as those found.

    found are the names of a file; without it the pairs are those to write.
    """
    prefix = PREFIX if found is None or any(name.startswith(PREFIX) for name in found) else ""
    return [Pair((name,), name if name == PROJECTION else prefix + name.removeprefix(PREFIX)) for name in names]


def open_clip_pairs(names: Iterable[str]) -> list[Pair]:
    """Return the pairs of a CLIP tower's tensors and OpenCLIP's.

    Raises:
        ValueError: a name that no CLIP tower has.
    """
    names = list(names)
    own = {name.removeprefix(PREFIX): name for name in names}
    pairs = []
    for bare, name in own.items():
        if bare.partition(".")[0] != "encoder":
            pairs.append(end(bare, name))
            continue
        _, _, layer, rest = bare.split(".", 3)
        block, (module, _, kind) = f"transformer.resblocks.{layer}", rest.rpartition(".")
        if module == "self_attn.q_proj":
            three = tuple(own[bare.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj"))
            pairs.append(Pair(three, f"{block}.attn.in_proj_{kind}", "stacked"))
        elif module in LAYER:
            pairs.append(Pair((name,), f"{block}.{LAYER[module]}.{kind}"))
        elif module not in ("self_attn.k_proj", "self_attn.v_proj"):
            raise ValueError(f"{name} is in no OpenCLIP tower: give a CLIPTextModelWithProjection")
    return pairs


ENDS: Mapping[str, str] = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}


def end(bare: str, name: str) -> Pair:
    """Return the pair of a tensor outside the layers."""
    if bare == PROJECTION:
        return Pair((name,), "text_projection", "transposed")
    if bare not in ENDS:
        raise ValueError(f"{name} is in no OpenCLIP tower: give a CLIPTextModelWithProjection")
    return Pair((name,), ENDS[bare])
