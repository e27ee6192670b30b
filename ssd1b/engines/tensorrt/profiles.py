"""Profiles: the ranges of the dynamic axes that one plan serves. Pure: neither TensorRT nor torch.

A plan holds for the shapes between the least and the most of one of its profiles, and is best at the usual one. UNet
rows count twice what is asked for, since guidance runs every picture with and without its prompt.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ssd1b.sizes import SDXL_BUCKETS, Size

Axes = tuple[int | str, ...]
"""A graph's input: a number where an axis is fixed, its name where it is not."""


@dataclass(frozen=True)
class Range:
    """What one axis may measure."""

    least: int
    usual: int
    most: int

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.usual <= self.most:
            raise ValueError(f"{self}: give 1 <= least <= usual <= most")

    def __contains__(self, length: int) -> bool:
        return self.least <= length <= self.most

    def __str__(self) -> str:
        return f"{self.least}..{self.usual}..{self.most}"


@dataclass(frozen=True)
class Shapes:
    """The three shapes that TensorRT wants of an input."""

    least: tuple[int, ...]
    usual: tuple[int, ...]
    most: tuple[int, ...]


@dataclass(frozen=True)
class Profile:
    """Axis name -> its range, sorted by name, so that equal profiles are equal values."""

    ranges: tuple[tuple[str, Range], ...]

    @staticmethod
    def of(ranges: Mapping[str, Range]) -> "Profile":
        return Profile(tuple(sorted(ranges.items())))

    def shapes(self, inputs: Mapping[str, Axes]) -> dict[str, Shapes]:
        """Return the shapes of a graph's inputs under this profile.

        Raises:
            ValueError: an axis of the graph without a range, or a range for an axis that the graph has fixed.
        """
        ranges = dict(self.ranges)
        dynamic = {axis for axes in inputs.values() for axis in axes if isinstance(axis, str)}
        fixed = {axis for axes in inputs.values() for axis in axes if isinstance(axis, int)}
        for axis, span in self.ranges:
            if axis not in dynamic and not (span.least == span.most and span.least in fixed):
                raise ValueError(f"the graph has no dynamic axis {axis!r}, which the profile wants as {span}; it has "
                                 f"{', '.join(sorted(dynamic)) or 'none'}: export the graph again with that axis "
                                 f"dynamic, or serve only what it is fixed at")  # fmt: skip
        if missing := sorted(dynamic - ranges.keys()):
            raise ValueError(f"the profile has no range for the graph's axis {', '.join(missing)}: add one")

        def shape(axes: Axes, which: str) -> tuple[int, ...]:
            return tuple(axis if isinstance(axis, int) else getattr(ranges[axis], which) for axis in axes)

        return {
            name: Shapes(shape(axes, "least"), shape(axes, "usual"), shape(axes, "most"))
            for name, axes in inputs.items()
        }

    def holds(self, lengths: Mapping[str, int]) -> bool:
        """Say whether these lengths of the named axes can be served."""
        ranges = dict(self.ranges)
        return all(length in ranges[axis] for axis, length in lengths.items() if axis in ranges)


@dataclass(frozen=True)
class Serving:
    """What a plan must be able to serve."""

    sizes: tuple[Size, ...] = SDXL_BUCKETS
    images: int = 16
    """The most pictures at once."""
    usual_images: int = 4
    guided: bool = True
    window: int = 77
    """Tokens of one window of a prompt, its two markers included."""
    windows: int = 4
    """The most windows of a prompt."""
    slots: Range = field(default_factory=lambda: Range(2, 9, 33))
    """Of the LoRA bank, where the graph leaves them open."""
    rank: Range = field(default_factory=lambda: Range(1, 32, 128))

    def __post_init__(self) -> None:
        if not self.sizes:
            raise ValueError("no sizes to serve: give at least one")
        for size in self.sizes:
            if size.height % 8 or size.width % 8:
                raise ValueError(f"size {size}: sides must be multiples of 8, for the latent is an eighth of them")

    def rows(self, images: int) -> int:
        """Rows of the UNet for that many pictures."""
        return images * 2 if self.guided else images


def unet_profiles(serving: Serving, *, per_size: bool) -> tuple[Profile, ...]:
    """Return a UNet's profiles: one for each size, or one that covers all of them."""
    usual = min(serving.usual_images, serving.images)
    rows = Range(1, serving.rows(usual), serving.rows(serving.images))
    tokens = Range(serving.window, serving.window, serving.window * serving.windows)
    shared = {"batch": rows, "tokens": tokens, "slots": serving.slots, "rank": serving.rank}
    return tuple(Profile.of(shared | sides) for sides in sides_of(serving.sizes, per_size=per_size))


def decoder_profiles(serving: Serving, *, per_size: bool) -> tuple[Profile, ...]:
    """Return the profiles of a VAE decoder: it decodes pictures, so guidance does not double its rows."""
    batch = {"batch": Range(1, 1, serving.images)}
    return tuple(Profile.of(batch | sides) for sides in sides_of(serving.sizes, per_size=per_size))


def encoder_profiles(serving: Serving) -> tuple[Profile, ...]:
    """Return the profile of a VAE encoder, whose sides are pixels. Pictures come in one by one: one is enough."""
    (latent,) = sides_of(serving.sizes, per_size=False)
    sides = {axis: Range(8 * span.least, 8 * span.usual, 8 * span.most) for axis, span in latent.items()}
    return (Profile.of({"batch": Range(1, 1, serving.images)} | sides),)


def text_profiles(serving: Serving) -> tuple[Profile, ...]:
    """Return the profile of a text tower: every window of every prompt is a row, and each prompt has its negative."""
    rows = serving.rows(serving.images) * serving.windows
    batch = Range(1, min(2, rows), rows)
    window = Range(*[serving.window] * 3)
    return (Profile.of({"batch": batch, "tokens": window, "slots": serving.slots, "rank": serving.rank}),)


def sides_of(sizes: Iterable[Size], *, per_size: bool) -> list[dict[str, Range]]:
    """Return the ranges of the latent's sides, which are eighths of the pictures'."""
    latents = [size.latent for size in sizes]
    if per_size:
        return [{"height": Range(*[s.height] * 3), "width": Range(*[s.width] * 3)} for s in latents]
    heights, widths = sorted(s.height for s in latents), sorted(s.width for s in latents)
    first = latents[0]  # the first size is the family's own
    return [
        {"height": Range(heights[0], first.height, heights[-1]), "width": Range(widths[0], first.width, widths[-1])}
    ]


CAPACITY = frozenset({"slots", "rank"})
"""Axes that say what a bundle can hold: a graph may have them fixed, and is not refused for it."""


def profiles_for(graph: str, inputs: Mapping[str, Axes], serving: Serving, *, per_size: bool) -> tuple[Profile, ...]:
    """Return the profiles of a graph by its name in the bundle: unet, vae_decoder, vae_encoder or text_encoder... .

    per_size suits a library that tunes kernels for each profile. Where kernels are compiled at the first use of a shape
    it only multiplies the build (nine profiles of the nano UNet: nine times the seconds and seven times the bytes).

    Raises:
        ValueError: no profiles are known for that name.
    """
    if graph.startswith("unet"):
        profiles = unet_profiles(serving, per_size=per_size)
    elif graph.startswith("vae_decoder"):
        profiles = decoder_profiles(serving, per_size=per_size)
    elif graph.startswith("vae_encoder"):
        profiles = encoder_profiles(serving)
    elif graph.startswith("text_encoder"):
        profiles = text_profiles(serving)
    else:
        raise ValueError(
            f"no profiles for a graph named {graph!r}: name it unet, vae_decoder, vae_encoder or text_encoder..."
        )
    dynamic = {axis for axes in inputs.values() for axis in axes}
    absent = CAPACITY - dynamic
    return tuple(Profile(tuple(pair for pair in profile.ranges if pair[0] not in absent)) for profile in profiles)
