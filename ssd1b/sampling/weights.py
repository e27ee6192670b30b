"""Weights in a prompt, as AUTOMATIC1111 and ComfyUI users write them: (word:1.3), (word), [word], nested, \\( escaped.

(word) weighs 1.1 and [word] 1/1.1; nested weights multiply. A bracket without its partner is text. Brackets that are
text are escaped: "a cat (grey)" weighs grey 1.1. The library for this, compel 2.5.1, is not used: it reads (word)1.3
and word++, takes "(word:1.3)" for text and "c++" for a weight, and pools the syntax as if it were words.
"""

import re
from dataclasses import dataclass

STEP = 1.1
"""What one pair of brackets multiplies by; square ones divide."""
GREATEST = 10.0
"""Weights further from zero than this only make noise, and without end would make infinity."""
PARTNER = {")": "(", "]": "["}
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)\s*")
NUMBER_CHARACTERS = 16
"""Longest number that is looked for before a closing bracket."""


@dataclass(frozen=True)
class Span:
    """A piece of a prompt and how much it counts."""

    text: str
    weight: float = 1.0


Spans = tuple[Span, ...]
"""A prompt that is read: its pieces in order, at least one."""


def plain(prompt: str) -> Spans:
    """Return a prompt whose brackets are text."""
    return (Span(prompt),)


def parse(prompt: str) -> Spans:
    """Return the pieces of a prompt with their weights, brackets and escapes gone; a bracket ends a word.

    A prompt without brackets and escapes is one span, as it stands.

    Raises:
        ValueError: a weight further from zero than GREATEST.
    """
    opened, closing = pairs(prompt)
    spans: list[Span] = []
    weights = [1.0]
    text: list[str] = []

    def flush() -> None:
        if not text:
            return
        spans.append(Span("".join(text), weights[-1]))
        text.clear()
        if not abs(weights[-1]) <= GREATEST:  # so that NaN, zero times infinity, is refused too
            raise ValueError(
                f"weight {weights[-1]:.4g} of {spans[-1].text[:40]!r} is further from 0 than {GREATEST:g}: give a "
                f"smaller one, or write brackets that are text as \\( and \\)"
            )

    i = 0
    while i < len(prompt):
        if escapes(prompt, i):
            text.append(prompt[i + 1])
            i += 2
        elif i in opened:
            flush()
            weights.append(weights[-1] * opened[i])
            i += 1
        elif i in closing:
            flush()
            weights.pop()
            i = closing[i]
        else:
            text.append(prompt[i])
            i += 1
    flush()
    return tuple(spans) or plain("")


def pairs(prompt: str) -> tuple[dict[int, float], dict[int, int]]:
    """Return opening brackets that have a partner -> weight, and where their text ends -> where the rest goes on."""
    opened: dict[int, float] = {}
    closing: dict[int, int] = {}
    open_now: list[int] = []
    waiting = {"(": 0, "[": 0}
    i = 0
    while i < len(prompt):
        character = prompt[i]
        if escapes(prompt, i):
            i += 1
        elif character in waiting:
            open_now.append(i)
            waiting[character] += 1
        elif waiting.get(PARTNER.get(character, "")):
            while prompt[start := open_now.pop()] != PARTNER[character]:
                waiting[prompt[start]] -= 1  # opened inside and never closed: text
            waiting[prompt[start]] -= 1
            opened[start], text_end = weight_of(prompt, start, i)
            closing[text_end] = i + 1
        i += 1
    return opened, closing


def weight_of(prompt: str, start: int, end: int) -> tuple[float, int]:
    """Return what the brackets at start and end weigh, and where their text ends. Only round ones hold a number."""
    if prompt[start] == "[":
        return 1 / STEP, end
    colon = prompt.rfind(":", max(start + 1, end - NUMBER_CHARACTERS), end)
    if colon > 0 and NUMBER.fullmatch(prompt, colon + 1, end):
        return float(prompt[colon + 1 : end]), colon
    return STEP, end


def escapes(prompt: str, i: int) -> bool:
    """Return whether a backslash here makes the next character text."""
    return prompt[i] == "\\" and prompt[i + 1 : i + 2] in {*"()[]\\"}
