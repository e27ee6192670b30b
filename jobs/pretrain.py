"""Train the nano family from nothing: VAE, text towers, base UNet, experts. Resumes by name."""

from typing import Any

from ssd1b import tracking
from ssd1b.command import main
from ssd1b.pretraining.family import pretrain
from ssd1b.recipes.pretrain import RECIPES, Pretrain


def run(config: Pretrain) -> dict[str, Any]:
    with tracking.run("pretrain", config.name) as tracked:
        return pretrain(config, lambda part, step, metrics: tracked.metrics(
            {f"{part}/{name}": value for name, value in metrics.items()}, step
        ))  # fmt: skip


if __name__ == "__main__":
    main(RECIPES, run)
