"""Classifier-free guidance, row by row."""

from collections.abc import Sequence

from torch import Tensor

# B rows, N engine rows: all rows with their prompt, then the guided ones again without; G guided rows, C H W latent


def guide(
    noise_NCHW: Tensor, guided: Sequence[int], where_G: Tensor | slice, guidance_B: Tensor, rescale: Sequence[float]
) -> Tensor:
    """Move the guided rows away from their unconditional prediction: u + g * (c - u) (arXiv 2207.12598, equation 6).

    guided are places of rows, where_G the same as an index on the device, or a slice if it is all; guidance_B and
    rescale are of all rows.
    """
    noise_BCHW = noise_NCHW[: len(guidance_B)]
    if not guided:
        return noise_BCHW
    unconditional_GCHW = noise_NCHW[len(guidance_B) :]
    conditional_GCHW, weight_G111 = noise_BCHW[where_G], guidance_B[where_G, None, None, None]
    moved_GCHW = unconditional_GCHW + weight_G111 * (conditional_GCHW - unconditional_GCHW)
    for place, row in enumerate(guided):
        if rescale[row]:
            moved_GCHW[place] = rescaled(moved_GCHW[place], conditional_GCHW[place], rescale[row])
    return moved_GCHW if isinstance(where_G, slice) else noise_BCHW.index_copy(0, where_G, moved_GCHW)


def rescaled(guided_CHW: Tensor, conditional_CHW: Tensor, share: float) -> Tensor:
    """Give guided noise, in this share, the standard deviation that it had before (arXiv 2305.08891, section 3.4).

    Of one row at a time: a sum over a batch may round otherwise than over a row.
    """
    return share * (guided_CHW * (conditional_CHW.std() / guided_CHW.std())) + (1 - share) * guided_CHW
