"""Numbers as people read them. Whatever is None was not measured, and is told so."""

from ssd1b.report.document import Number

NOT_MEASURED = "not measured"
MINUS, BOUND = "\u2212", "\u00a0"
"""A minus sign, and the space that a number and its unit are not parted at."""
NOTHING = 5e-5
"""What is smaller than this is noise of the arithmetic, not a measurement."""


def number(value: float | None) -> str:
    """Return three significant digits; whole numbers and thousands without a point, with commas."""
    if value is None:
        return NOT_MEASURED
    if value and abs(value) < NOTHING:
        return "\u2248 0"
    whole = abs(value) >= 999.5 or value == int(value)
    text = f"{abs(value):,.0f}" if whole else f"{abs(value):#.3g}".rstrip(".")
    return f"{MINUS}{text}" if value < 0 else text


def signed(value: float | None) -> str:
    """Return a change, with its sign."""
    return f"+{number(value)}" if value is not None and value >= NOTHING else number(value)


def percent(value: float | None) -> str:
    """Return a share of 1 in percent, one decimal below 10 %."""
    if value is None:
        return NOT_MEASURED
    shown = 100 * abs(value)
    text = f"{shown:.1f}" if 0.05 <= shown < 9.95 else f"{shown:,.0f}"
    return f"{MINUS if value < 0 and text != '0' else ''}{text}{BOUND}%"


def interval(of: Number, how: str = "number") -> str:
    """Return "95 %: low to high"; how: "number", "signed" or "percent". Empty where there is none."""
    found = ends(of, how)
    return f"95{BOUND}%: {found}" if found else ""


def ends(of: Number, how: str = "number") -> str:
    """Return "low to high" of an interval; empty where there is none."""
    return "" if of.low is None or of.high is None else f"{HOW[how](of.low)} to {HOW[how](of.high)}"


def measured(of: Number, how: str = "number") -> str:
    """Return a number with its interval, and over how many prompts, in parentheses."""
    over = f"{of.count:,} prompt{'s' * (of.count != 1)}" if of.count is not None else ""
    unsure = interval(of, how) or ("no interval" if of.value is not None else "")
    beside = ", ".join(filter(None, (unsure, over)))
    return HOW[how](of.value) + (f" ({beside})" if beside else "")


def millions(value: float | None) -> str:
    """Return a count of parameters: 8.05 M, 1.3 B."""
    if value is None:
        return NOT_MEASURED
    return f"{value / 1e9:.3g}{BOUND}B" if value >= 1e9 else f"{value / 1e6:.3g}{BOUND}M"


def milliseconds(value: float | None) -> str:
    """Return a time with its unit."""
    return NOT_MEASURED if value is None else f"{number(value)}{BOUND}ms"


def listed(words: list[str]) -> str:
    """Return "a, b and c"."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


HOW = {"number": number, "signed": signed, "percent": percent}
