"""A job's own memory of a run: what it is called in MLflow, and what is settled. Small, and whole after any kill."""

import json
from pathlib import Path


class Notes:
    """Names and values in `<root>/job.json`."""

    def __init__(self, root: Path) -> None:
        self.path = root / "job.json"
        self.values: dict[str, str] = json.loads(self.path.read_text()) if self.path.exists() else {}

    def get(self, name: str) -> str | None:
        return self.values.get(name)

    def set(self, name: str, value: str) -> None:
        self.values[name] = value
        aside = self.path.with_suffix(".tmp")
        aside.write_text(json.dumps(self.values))
        aside.rename(self.path)
