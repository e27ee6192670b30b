"""Why rows are left out, by name: every row that does not reach a manifest or a latents file is counted under one."""

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """The names under which rows are counted as rejected."""

    UNREADABLE_SHARD = "unreadable_shard"
    """A file or row group that cannot be read to its end. Counts the rows known to be lost, or 1."""
    METADATA_UNREADABLE = "metadata_unreadable"
    """A metadata line that is not a JSON object with a file name, or a key without a picture in a tar."""
    PATH_OUTSIDE_FOLDER = "path_outside_folder"
    """A metadata line that names a file outside its image folder."""
    IMAGE_MISSING = "image_missing"
    """No picture in the row, or no file where the row says it lies."""
    IMAGE_CORRUPT = "image_corrupt"
    """Bytes that do not decode to their end: truncated, or no picture at all."""
    IMAGE_TOO_LARGE = "image_too_large"
    """More pixels than the recipe decodes: a decompression bomb, or a map."""
    IMAGE_MODE_UNKNOWN = "image_mode_unknown"
    """Floating-point or 32-bit pixels, whose white is not known."""
    IMAGE_BLANK = "image_blank"
    """One colour from edge to edge."""
    CAPTION_EMPTY = "caption_empty"
    """No caption with a letter or digit in it."""
    CAPTION_NOT_UTF8 = "caption_not_utf8"
    TOO_SMALL = "too_small"
    """Smaller than its bucket: nothing is scaled up."""
    ASPECT_EXTREME = "aspect_extreme"
    """Further from the nearest bucket's shape than the recipe allows to be cropped away."""
    DUPLICATE_KEY = "duplicate_key"
    """Source and key of a row that is already in."""
    DUPLICATE = "duplicate"
    """The very bytes of a picture that is already in."""
    CONCEPT_UNKNOWN = "concept_unknown"
    """A drawing that joins no emoji, so that it has no caption."""
    CONCEPT_DRAWN_TWICE = "concept_drawn_twice"
    """A second drawing of one emoji in one set."""
    BRAND_LOGO = "brand_logo"
    ICON_WITHDRAWN = "icon_withdrawn"
    """An icon that its set keeps only for old names."""
    LATENTS_NOT_FINITE = "latents_not_finite"
    """Not even float32 gives finite latents: the VAE or the picture is broken. (Overflow in fp16 is done again.)"""


@dataclass(frozen=True, kw_only=True)
class Reject:
    """One thing that was left out (or `rows` of them)."""

    reason: Reason
    source: str = ""
    key: str = ""
    detail: str = ""
    rows: int = 1
