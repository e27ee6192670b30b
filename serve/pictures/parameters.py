"""How a picture was made, as the text that A1111 keeps in its files and much software reads. Pure.

    a red apple <lora:ink:0.8>
    Negative prompt: blurry
    Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 1024x1024, Version: ...

Prompts may hold any character and any number of lines. The one thing the form cannot say is a negative prompt with a
line that itself begins "Negative prompt:". No clock is in it: the same request gives the same text.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

from serve.dialects.samplers import a1111_name
from serve.offer import Offer
from serve.request import GenerationRequest
from ssd1b.sizes import Size

NEGATIVE = "Negative prompt: "
SETTING = re.compile(r'\s*(\w[\w /-]*):\s*("(?:\\.|[^"\\])*"|[^,]*)(?:,|$)')
FEWEST = 3
"""A last line with fewer settings is taken for a part of the prompt, as A1111 does."""


@dataclass(frozen=True)
class Parameters:
    """The text, taken apart."""

    prompt: str
    negative_prompt: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    """In their order, as text."""

    def __str__(self) -> str:
        lines = [self.prompt]
        if self.negative_prompt or f"\n{NEGATIVE}" in f"\n{self.prompt}":
            lines.append(NEGATIVE + self.negative_prompt)
        if self.settings:
            lines.append(", ".join(f"{name}: {quoted(value)}" for name, value in self.settings.items()))
        return "\n".join(lines)

    @staticmethod
    def parse(text: str) -> "Parameters":
        """Take any text apart; what has no settings is a prompt."""
        body, _, last = f"\n{text}".rpartition("\n")
        found = SETTING.findall(last)
        if len(found) < FEWEST:
            body, found = f"\n{text}", []
        prompt, mark, negative = body.rpartition(f"\n{NEGATIVE}")
        if not mark:
            prompt, negative = body, ""
        return Parameters(prompt[1:], negative, {name: unquoted(value) for name, value in found})


def parameters(
    request: GenerationRequest, seed: int, size: Size, offer: Offer, lora_hashes: Mapping[str, str] | None = None
) -> Parameters:
    """Return what is told of one picture of a request.

    lora_hashes: hex digests of adapters by name; one without is told by its name and weight only.
    """
    sampler, schedule = a1111_name(request.sampler)
    hashes = lora_hashes or {}
    told = [f"{lora.name}: {hashes[lora.name]}" for lora in request.loras if lora.name in hashes]
    settings = {
        "Steps": request.steps,
        "Sampler": sampler,
        "Schedule type": schedule,
        "CFG scale": f"{request.guidance:g}",
        "Seed": seed,
        "Size": size,
        "Model": offer.model,
        "Model version": offer.version,
        "Denoising strength": f"{request.start.strength:g}" if request.start else None,
        "Guidance rescale": f"{request.rescale:g}" if request.rescale else None,
        "Style": request.style,
        "Lora hashes": ", ".join(told) or None,
        "Version": f"ssd1b {version('ssd1b')}",
    }
    loras = "".join(f" <lora:{lora.name}:{lora.scale:g}>" for lora in request.loras)
    kept = {name: clean(str(value)) for name, value in settings.items() if value is not None}
    return Parameters(clean(request.prompt + loras), clean(request.negative_prompt), kept)


def clean(text: str) -> str:
    """Return the text without what no file can hold: NUL, and halves of surrogate pairs."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def quoted(value: str) -> str:
    """Write a value that would be taken apart, or lose its ends, as a JSON string."""
    plain = value and value == value.strip() and not re.search(r'[,:"\n\r]', value)
    return value if plain else json.dumps(value, ensure_ascii=False)


def unquoted(value: str) -> str:
    if value.startswith('"'):
        try:
            return str(json.loads(value))
        except ValueError:
            return value  # somebody else's way of writing: shown as it is
    return value.strip()
