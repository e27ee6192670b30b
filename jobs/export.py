"""Export a model as an engine bundle, check it, time it, register it: python -m jobs.export nano."""

from functools import partial
from typing import Any

from ssd1b import tracking
from ssd1b.command import main, show
from ssd1b.engines.bundle import Bundle, built
from ssd1b.engines.export import check, step_times
from ssd1b.home import home
from ssd1b.models.local import folder_of
from ssd1b.recipes.export import RECIPES, Export


def run(config: Export) -> dict[str, Any]:
    version = tracking.find(config.model) if config.model.startswith("models:/") else None
    folder = tracking.download(version.uri) if version else folder_of(config.model)
    root = home() / "bundles"
    base = version.uri if version else config.model
    as_asked = partial(
        built, root=root, slots=config.slots, rank=config.rank, precision=config.precision,
        convolutions=config.convolutions,
    )  # fmt: skip
    made = as_asked(folder, name=config.name, base=base)
    if config.tensorrt:
        from ssd1b.engines.tensorrt.bundled import add_plans

        add_plans(made.folder, home() / "plans", config.tensorrt, made.sizes)
    bundle = Bundle.load(made.folder, config.backend)
    show(f"bundle {bundle.folder}: {len(bundle.manifest['files'])} files, {bundle.size_bytes / 2**20:.1f} MiB")
    teacher = Bundle.load(
        as_asked(folder_of(config.teacher), name="teacher", base=config.teacher).folder, config.backend
    )
    registered = {found.name: found for found in reversed(tracking.versions({"kind": "lora", "base": config.name}))}
    adapters = {found.tags["lora"]: tracking.download(found.uri) for found in registered.values()}
    checks = check(bundle, adapters, config.check_steps)
    times = step_times({"teacher": teacher, "student": bundle}, config.batch, config.repeats)
    tags = {"kind": "bundle", "base": base, "backend": checks["engine"]}
    name = f"{config.name}-bundle"
    uri = f"models:/{name}/{tracking.register(name, bundle.folder, tags=tags)}"
    if version:
        tracking.tag(version.name, version.version, "bundle", uri)
    return {"bundle": uri, "model": base, **checks, "batch": config.batch, "step_ms": times}


if __name__ == "__main__":
    main(RECIPES, run)
