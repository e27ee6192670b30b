"""What a request costs. Pure.

Money is counted in mills, whole thousandths of a credit, so that sums are exact. One picture costs

    max(least, ceil((base + step * steps) * pixels / 2**20)) mills

since a denoising step, like the decoding after the last one, takes work in proportion to the pixels. Steps are the ones
asked for: a picture that starts from another one and skips some of them costs as much as one drawn from noise.
With the defaults, in credits a picture:

    steps           8       20       30
    128x128     0.008    0.016    0.023
    512x512     0.115    0.250    0.363
    1024x1024   0.460    1.000    1.450
"""

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from ssd1b.sizes import Size

MILLS = 1000
"""Mills in a credit."""
MEGAPIXEL = 2**20
MOST = 10**15
"""Mills that one grant moves at most, so that sums stay far below what a database's integers hold."""


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Mills for a picture of 2**20 pixels."""

    base: int = 100
    """Reading the prompt and decoding the picture."""
    step: int = 45
    """Each denoising step."""
    least: int = 1
    """No picture costs less, however small."""

    def __post_init__(self) -> None:
        for name in ("base", "step", "least"):
            if getattr(self, name) < 0:
                raise ValueError(f"price {name} is {getattr(self, name)}: no price is below 0")

    def of(self, pictures: int, steps: int, size: Size) -> int:
        """Return the price of a request, mills; see the module for the formula."""
        work = (self.base + self.step * steps) * size.height * size.width
        return pictures * max(self.least, -(-work // MEGAPIXEL))


def mills_of(credits: str) -> int:
    """Read an amount of credits as people write it.

    Raises:
        ValueError: no number, finer than a mill, or beyond what an account may hold.
    """
    try:
        mills = Decimal(credits) * MILLS
    except InvalidOperation as error:
        raise ValueError(f"{credits!r} is no amount of credits: write a number, for example 1000 or 0.25") from error
    if not mills.is_finite() or mills != mills.to_integral_value() or abs(mills) > MOST:
        raise ValueError(
            f"{credits} credits cannot be booked: whole thousandths, at most {MOST // MILLS:,} credits at once"
        )
    return int(mills)


def credits_of(mills: int) -> float:
    """Return an amount for reports and headers; the ledger itself never leaves whole mills."""
    return mills / MILLS
