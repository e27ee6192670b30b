"""Denoising at real size on one GPU, with random weights: python -m ssd1b.trials.gpu_engine full

It asks for neither Ray nor MLflow, so it runs on a bare machine. It measures what SSD-1B's announcement tells: steps a
second of SDXL and SSD-1B at batches of pictures, with guidance, and the memory that both hold and need. In turns: plain
diffusers in eager torch, our step in eager torch, and ours compiled into CUDA graphs. And what the LoRA bank costs, how
soon an adapter is live, how long the VAE takes. `small` runs the same code at nano width on a CPU.
"""

import gc
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig

from ssd1b.adapters.adapter import Adapter
from ssd1b.command import main, show
from ssd1b.engines.checks import random_layers
from ssd1b.engines.engine import Engine
from ssd1b.engines.on_compiled import CompiledEngine
from ssd1b.engines.on_torch import TorchEngine
from ssd1b.models.sources import NANO
from ssd1b.provenance import machine
from ssd1b.pruning.full_size import random_unet
from ssd1b.recipes.gpu_engine import RECIPES, GpuEngine
from ssd1b.sampling.denoise import Request, Row, advance, micro_conditioning
from ssd1b.sampling.step import MEMORY
from ssd1b.sampling.tables import table
from ssd1b.sizes import Size
from ssd1b.trials.contenders import PLAIN, SIZE, fill, fused_into
from ssd1b.trials.random_pipeline import TOWERS
from ssd1b.trials.turns import Call, medians_ms, settle

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
TOKENS = 77
MB = 1e6
"""As the announcement counts: the gap between SDXL's and SSD-1B's idle memory is that of their weights in fp16."""
VAE: dict[str, Any] = {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "norm_num_groups": 32,
                       "sample_size": 1024}  # fmt: skip
"""How SDXL's VAE differs from the nano family's (its published config)."""
GUIDANCE = 7.5


@dataclass(frozen=True)
class Bench:
    """One member on the device."""

    config: GpuEngine
    device: torch.device
    size: Size
    unet: UNet2DConditionModel
    name: str

    def engines(self) -> dict[str, Engine]:
        """Return our engines, without adapters in their banks."""
        engines: dict[str, Engine] = {"eager": TorchEngine(self.unet, slots=2, rank=1)}
        if self.config.compiled:
            engines["compiled"] = CompiledEngine(self.unet, slots=2, rank=1)
        return engines

    def rows(self, pictures: int, slots: int = 0) -> list[Row]:
        """Return pictures in the making on the device; the first `slots` slots of the bank are given out in turn."""
        unet, draw = self.unet.config, torch.Generator().manual_seed(self.config.seed)
        pooled = unet.projection_class_embeddings_input_dim - 6 * unet.addition_time_embed_dim
        latent = (unet.in_channels, self.size.latent.height, self.size.latent.width)
        steps = table("euler", 50)
        rows = []
        for i in range(pictures):
            request = Request(
                prompt="", seed=i, steps=50, guidance=GUIDANCE, size=self.size, slot=1 + i % slots if slots else 0
            )
            texts = [torch.randn(shape, generator=draw).to(self.device)
                     for shape in ((TOKENS, unet.cross_attention_dim), (pooled,)) * 2]  # fmt: skip
            latents_CHW = (torch.randn(latent, generator=draw) * steps.start).to(self.device)
            memory = [latents_CHW, *[torch.zeros_like(latents_CHW)] * (len(MEMORY) - 1)]
            rows.append(Row(request=request, table=steps, text_TD=texts[0], pooled_E=texts[1], negative_TD=texts[2],
                            negative_pooled_E=texts[3], generator=torch.Generator(), memory=memory))  # fmt: skip
        return rows

    def ours(self, engine: Engine, rows: list[Row]) -> Call:
        """Return a call that takes the rows some steps further; they begin anew when they are done."""

        def call() -> None:
            for _ in range(self.config.steps):
                for row in rows:
                    row.step %= len(row.table) - 1
                advance(engine, rows)

        return call

    def plain(self, pictures: int) -> Call:
        """Return as many steps as StableDiffusionXLPipeline makes them."""
        scheduler = EulerDiscreteScheduler.from_pretrained(NANO / "scheduler")
        rows, dtype = self.rows(pictures), self.unet.dtype
        text_NTD = torch.stack([row.negative_TD for row in rows] + [row.text_TD for row in rows]).to(dtype)
        pooled_NE = torch.stack([row.negative_pooled_E for row in rows] + [row.pooled_E for row in rows]).to(dtype)
        micro = torch.tensor([micro_conditioning(self.size)] * 2 * pictures, device=self.device, dtype=dtype)
        added = {"text_embeds": pooled_NE, "time_ids": micro}
        latents_BCHW = torch.stack([row.latents_CHW for row in rows]).to(dtype)

        @torch.no_grad()
        def call() -> None:
            scheduler.set_timesteps(50, device=self.device)
            latents = latents_BCHW
            for timestep in scheduler.timesteps[: self.config.steps]:
                asked = scheduler.scale_model_input(torch.cat([latents] * 2), timestep)
                noise = self.unet(
                    asked, timestep, encoder_hidden_states=text_NTD, added_cond_kwargs=added, return_dict=False
                )[0]
                without, with_prompt = noise.chunk(2)
                noise = without + GUIDANCE * (with_prompt - without)
                latents = scheduler.step(noise, timestep, latents, return_dict=False)[0]

        return call


def gpu_engine(config: GpuEngine) -> dict[str, Any]:
    """Measure what a recipe describes, print the tables and return them.

    Raises:
        ValueError: no such member or size.
    """
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    show(f"{name}, {config.size}, {config.dtype}, guidance: a step of B pictures is a UNet call of 2 B rows")
    rest = pipeline_without_unet(config, device)
    result: dict[str, Any] = {"gpu": name, "machine": machine(["torch", "transformers"]), "members": {}}
    for member_name in (config.teacher, config.student):
        unet = random_unet(member_name, config.seed).to(device, DTYPES[config.dtype])
        bench = Bench(config, device, Size.parse(config.size), unet, member_name)
        result["members"][member_name] = measured(bench)
        if member_name == config.student:
            result["bank"] = bank(bench)
            result["live"] = live(bench)
            result["decode"] = decode(bench, rest, result["members"][member_name])
        del unet, bench
        forget(device)
    return result | compared(config, result["members"])


def pipeline_without_unet(config: GpuEngine, device: torch.device) -> dict[str, nn.Module]:
    """Return VAE and text towers with random weights on the device, in the sizes that go with the teacher."""
    real = config.teacher == "sdxl"
    vae = AutoencoderKL.from_config(AutoencoderKL.load_config(NANO / "vae") | (VAE if real else {}))
    parts: dict[str, nn.Module] = {"vae": vae}
    for name, (kind, full_size) in TOWERS.items():
        shape = json.loads((NANO / name / "config.json").read_text()) | (full_size if real else {})
        parts[name] = kind(CLIPTextConfig.from_dict(shape))
    return {name: part.eval().requires_grad_(False).to(device, DTYPES[config.dtype]) for name, part in parts.items()}


def measured(bench: Bench) -> dict[str, Any]:
    """Return a member's steps a second by batch and contender, and its memory: held when idle, and at the most."""
    config, device = bench.config, bench.device
    result: dict[str, Any] = {"parameters": int(bench.unet.num_parameters()), "idle_mb": held_mb(device)}
    if device.type == "cuda":
        show(f"{bench.name}: {result['idle_mb']:,.0f} MB held when idle")
    engines = bench.engines()
    result["steps_per_s"], result["peak_mb"] = {}, {}
    for pictures in config.batches:
        calls: dict[str, Call] = {PLAIN: bench.plain(pictures)}
        calls |= {name: bench.ours(engine, bench.rows(pictures)) for name, engine in engines.items()}
        peaks = {name: peak_mb(device, call) for name, call in calls.items()}
        times = medians_ms(calls, config.turns, device)
        rates = {name: round(1000 * config.steps / taken, 4) for name, taken in times.items()}
        result["steps_per_s"][str(pictures)], result["peak_mb"][str(pictures)] = rates, peaks
        told = "  ".join(f"{name} {rate:.3f}/s" + (f" ({peaks[name]:,.0f} MB)" if peaks[name] else "")
                         for name, rate in rates.items())  # fmt: skip
        show(f"{bench.name}, {pictures} pictures: {told}")
    return result


def held_mb(device: torch.device) -> float:
    """Return what tensors hold of the GPU's memory; 0 on a CPU."""
    return torch.cuda.memory_allocated(device) / MB if device.type == "cuda" else 0.0


def peak_mb(device: torch.device, call: Callable[[], object]) -> float:
    """Return the most that tensors hold during a call, the first of its kind; 0 on a CPU."""
    if device.type != "cuda":
        call()
        return 0.0
    settle(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    settle(device)
    return torch.cuda.max_memory_allocated(device) / MB


def forget(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch._dynamo.reset()
        torch.cuda.empty_cache()


def bank(bench: Bench) -> dict[str, Any]:
    """Return by rank and engine what a step costs over one without adapters, with 1 and with as many as pictures."""
    config, pictures = bench.config, bench.config.bank_pictures
    kinds: dict[str, Callable[..., Engine]] = {"eager": TorchEngine}
    if config.compiled:
        kinds["compiled"] = CompiledEngine
    result: dict[str, Any] = {}
    for rank in config.ranks:
        result[str(rank)] = {}
        for name, kind in kinds.items():
            engine = kind(bench.unet, slots=pictures + 1, rank=rank)
            without = bench.ours(engine, bench.rows(pictures))
            base = medians_ms({"none": without}, config.turns, bench.device)["none"]  # before the bank holds anything
            fill(engine, rank, pictures)
            calls = {str(number): bench.ours(engine, bench.rows(pictures, number)) for number in (1, pictures)}
            times = medians_ms(calls, config.turns, bench.device)
            result[str(rank)][name] = {key: round(taken / base, 3) for key, taken in times.items()}
            told = ", ".join(f"{key} different {taken / base:.3f}" for key, taken in times.items())
            show(f"{bench.name}, {name}, {pictures} pictures, adapters of rank {rank} over none: {told}")
            del engine
            forget(bench.device)
    return result


def live(bench: Bench) -> dict[str, float]:
    """Return the milliseconds until an adapter in memory is live: into a slot, and by diffusers' load and fuse."""
    rank = bench.config.ranks[len(bench.config.ranks) // 2]
    engine = TorchEngine(bench.unet, slots=2, rank=rank)
    adapter = Adapter("live", random_layers(engine.layout, rank, SIZE))
    calls: dict[str, Call] = {"slot": lambda: engine.load_adapter(1, adapter), PLAIN: fused_into(bench.unet, adapter)}
    times = medians_ms(calls, bench.config.turns, bench.device)
    show(
        f"an adapter of rank {rank} is live after {times['slot']:.1f} ms in a slot; "
        f"diffusers loads and fuses it in {times[PLAIN]:.1f} ms"
    )
    return {name: round(taken, 2) for name, taken in times.items()}


def decode(bench: Bench, rest: dict[str, nn.Module], rates: dict[str, Any]) -> dict[str, Any]:
    """Return how long the VAE takes for a picture, and its share of whole ones of so many steps, on our fastest."""
    vae, size = rest["vae"], bench.size.latent
    latents_BCHW = torch.randn(1, 4, size.height, size.width, device=bench.device, dtype=bench.unet.dtype)

    @torch.no_grad()
    def call() -> Tensor:
        pixels_BCHW: Tensor = vae.decode(latents_BCHW).sample  # type: ignore[operator]
        return pixels_BCHW

    taken = medians_ms({"decode": call}, bench.config.turns, bench.device)["decode"]
    fastest = max(rate for name, rate in rates["steps_per_s"][str(bench.config.batches[0])].items() if name != PLAIN)
    shares = {str(steps): round(taken / (taken + 1000 * steps / fastest), 3) for steps in bench.config.image_steps}
    show(f"decoding a picture: {taken:.1f} ms; of a whole one "
         + ", ".join(f"{share:.0%} at {steps} steps" for steps, share in shares.items()))  # fmt: skip
    return {"ms": round(taken, 2), "share": shares}


def compared(config: GpuEngine, members: dict[str, Any]) -> dict[str, Any]:
    """Return the ratios that the announcement tells, and print them."""
    teacher, student = (members[name]["steps_per_s"] for name in (config.teacher, config.student))
    ratio = {pictures: {name: round(rate / teacher[pictures][name], 3) for name, rate in rates.items()}
             for pictures, rates in student.items()}  # fmt: skip
    fastest = {pictures: round(max(rate for name, rate in rates.items() if name != PLAIN) / teacher[pictures][PLAIN], 3)
               for pictures, rates in student.items()}  # fmt: skip
    gap = members[config.teacher]["idle_mb"] - members[config.student]["idle_mb"]
    for pictures, rates in ratio.items():
        told = "  ".join(f"{name} {each:.3f}" for name, each in rates.items())
        show(f"{config.student} over {config.teacher}, {pictures} pictures: {told}; our fastest over plain "
             f"diffusers of {config.teacher}: {fastest[pictures]:.2f}")  # fmt: skip
    return {"student_over_teacher": ratio, "fastest_over_plain_teacher": fastest, "idle_gap_mb": round(gap, 1)}


if __name__ == "__main__":
    main(RECIPES, gpu_engine)
