"""Exact colours with everyday names, and the pairs of them in which a drawing can be told from its background."""

INKS = {
    "black": "#000000",
    "white": "#ffffff",
    "red": "#e02020",
    "orange": "#ff8c00",
    "yellow": "#ffd700",
    "green": "#1f8a2d",
    "blue": "#1e5bff",
    "purple": "#8a2be2",
    "pink": "#ff69b4",
    "brown": "#7b4a1e",
}
GROUNDS = {
    "white": "#ffffff",
    "black": "#000000",
    "navy": "#0b1f4b",
    "cream": "#fff3d6",
    "grey": "#c8c8c8",
    "mint": "#c4f0d8",
}
LEAST_CONTRAST = 3.0
"""WCAG 2.2's least ratio for graphics (1.4.11)."""


def luminance(colour: str) -> float:
    """Return the relative luminance of "#rrggbb", 0 to 1 (WCAG 2.2, definition of relative luminance)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Return WCAG's contrast ratio of two colours, 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


PAIRS = tuple(
    (ink, ground) for ink in INKS for ground in GROUNDS if contrast(INKS[ink], GROUNDS[ground]) >= LEAST_CONTRAST
)
"""Names of (ink, ground); like on like is left out: no black on navy, no yellow on white."""
