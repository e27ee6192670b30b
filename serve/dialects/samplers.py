"""What other APIs call the samplers of ssd1b.sampling.tables. A name that has no counterpart here is refused."""

from collections.abc import Mapping

from serve.errors import RequestError, not_offered
from ssd1b.sampling.tables import SAMPLERS

OURS = {name: name for name in SAMPLERS}

SEGMIND = {
    "DPM Multi": "dpmpp_2m",
    "UniPC": "unipc",
    "Euler": "euler",
    "Euler a": "euler_a",
    "Heun": "heun",
    "DDIM": "ddim",
    "DDPM": "ddpm",
}
REPLICATE = {
    "K_EULER": "euler",
    "K_EULER_ANCESTRAL": "euler_a",
    "DDIM": "ddim",
    "DPMSolverMultistep": "dpmpp_2m",
    "HeunDiscrete": "heun",
    "KarrasDPM": "dpmpp_2m_karras",
}
"""As stability-ai/sdxl on Replicate names them; its KarrasDPM is DPMSolverMultistep with Karras levels."""
DIFFUSERS = {
    "EulerDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "euler_a",
    "HeunDiscreteScheduler": "heun",
    "DDIMScheduler": "ddim",
    "DDPMScheduler": "ddpm",
    "LCMScheduler": "lcm",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
    "UniPCMultistepScheduler": "unipc",
}
"""The class alone: options such as Karras levels have no place in Hugging Face's `scheduler`; our own names do."""
A1111 = {
    "Euler": "euler",
    "Euler a": "euler_a",
    "Heun": "heun",
    "DDIM": "ddim",
    "DDPM": "ddpm",
    "LCM": "lcm",
    "DPM++ 2M": "dpmpp_2m",
    "DPM++ 2M SDE": "dpmpp_2m_sde",
    "DPM++ SDE": "dpmpp_sde",
    "UniPC": "unipc",
}
A1111_WHOLE = (*A1111, *(f"{name} Karras" for name, ours in A1111.items() if f"{ours}_karras" in SAMPLERS))
"""With the names that are sampler and schedule type in one."""
A1111_SCHEDULERS = ("Automatic", "Karras", "Uniform")
"""Uniform: the levels that the sampler has of itself."""


def named(name: str, table: Mapping[str, str], param: str) -> str:
    """Return our name of a sampler; our own names are understood in every dialect.

    Raises:
        RequestError: no such sampler here.
    """
    found = table.get(name) or OURS.get(name)
    if found is None:
        raise not_offered(param, name, tuple(table))
    return found


def a1111(name: str, scheduler: str) -> str:
    """Return our name for A1111's sampler and schedule type; "DPM++ 2M Karras", as before its 1.9, is both in one.

    Automatic is Karras where the sampler has it, as in A1111 for DPM++ 2M and DPM++ SDE. (A1111 gives DPM++ 2M SDE
    exponential levels, which there are none of here.)

    Raises:
        RequestError: a name or a pair that is not offered.
    """
    if scheduler not in A1111_SCHEDULERS:
        raise not_offered("scheduler", scheduler, A1111_SCHEDULERS)
    plain = name.removesuffix(" Karras")
    sampler = named(plain, A1111, "sampler_name")
    karras = f"{sampler}_karras"
    if karras in SAMPLERS:
        return karras if plain != name or scheduler != "Uniform" else sampler
    if plain != name or scheduler == "Karras":
        raise RequestError(
            f"{plain} has no Karras levels: leave scheduler out, or use DPM++ 2M", "scheduler", "invalid_value"
        )
    return sampler


def a1111_name(sampler: str) -> tuple[str, str]:
    """Return A1111's name and schedule type for one of ours."""
    plain = sampler.removesuffix("_karras")
    name = next((theirs for theirs, ours in A1111.items() if ours == plain), plain)
    return name, "Karras" if plain != sampler else "Uniform" if f"{plain}_karras" in SAMPLERS else "Automatic"
