"""The walls of the house: who may import whom, how long a file may be, what lies at the top."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("cluster", "jobs", "serve", "ssd1b", "tests")
TOP_LEVEL = {
    "cluster", "ssd1b", "jobs", "serve", "tests", "pyproject.toml", "ray_cluster.yaml",
    "README.md", "LICENSE", "NOTICE", "CHANGELOG.md", "ARCHITECTURE.md", "DEVELOPERS.md", "Makefile", "constraints.txt",
}  # fmt: skip
MODEL_FOLDERS = (
    "family", "models", "pruning", "sampling", "adapters", "engines", "evaluation", "pretraining", "recipes",
)  # fmt: skip
MODEL_FILES = (
    "training/losses.py", "training/taps.py", "training/stages.py", "training/moments.py", "training/checkpoint.py",
    "training/prediction.py", "training/ema.py", "training/switches.py", "training/conditioning.py",
    "training/pupil.py", "training/validation.py", "trials/plain_loop.py", "training/machine.py", "trials/cost.py",
    "trials/memory.py", "trials/full_size_text.py", "trials/random_pipeline.py", "trials/gpu_step.py",
    "trials/gpu_engine.py", "trials/contenders.py", "trials/turns.py", "provenance.py",
    "sizes.py", "command.py", "home.py",
)  # fmt: skip


def sources(*rooms: str) -> list[Path]:
    return sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))


def model_half() -> list[Path]:
    folders = [f"ssd1b/{folder}" for folder in MODEL_FOLDERS]
    files = [ROOT / "ssd1b" / name for name in MODEL_FILES]
    return [*sources(*folders), *(path for path in files if path.exists())]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the dotted names of all modules that are imported anywhere in a file, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""


def offenders(paths: list[Path], forbidden: set[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in paths
        for name in imports(ast.parse(path.read_text()))
        if name.partition(".")[0] in forbidden
    ]


def test_the_rule_finds_an_offender(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from ray.data import Dataset\n    import mlflow\n")
    assert offenders([bad], {"ray", "mlflow"}) == ["bad.py imports ray.data", "bad.py imports mlflow"]


def test_the_library_imports_no_room_above_it() -> None:
    assert not offenders(sources("ssd1b"), {"jobs", "serve", "cluster", "tests"})


@pytest.mark.parametrize("room", ["jobs", "serve", "cluster"])
def test_the_rooms_above_import_the_library_only(room: str) -> None:
    assert not offenders(sources(room), {"jobs", "serve", "cluster", "tests"} - {room})


def test_the_model_half_names_neither_ray_nor_mlflow() -> None:
    assert not offenders(model_half(), {"ray", "mlflow"})


def test_the_model_half_imports_where_ray_and_mlflow_cannot_be() -> None:
    """Catches what the names do not show: a library file that imports them on the model half's behalf."""
    # Optional engines are imported lazily by their own files; a file named after one may need it at the top.
    modules = [module_name(path) for path in model_half() if not path.stem.startswith("on_")]
    blocked = "import sys; sys.modules['ray'] = sys.modules['mlflow'] = None\n"
    program = blocked + "\n".join(f"import {module}" for module in modules)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stderr[-2000:]


def test_recipes_are_cheap_to_read() -> None:
    """A recipe's help must not wait for torch."""
    modules = [module_name(path) for path in sources("ssd1b/recipes")]
    heavy = ("torch", "diffusers", "pyarrow", "ray", "mlflow")
    program = "\n".join(f"import {module}" for module in modules) + f"\nprint([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{program}"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr[-2000:]


@pytest.mark.parametrize("path", sources(*ROOMS), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_longer_than_400_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", sources("jobs"), ids=lambda path: path.name)
def test_a_job_is_under_60_lines_and_says_what_it_does(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) < 60
    assert not text or ast.get_docstring(ast.parse(text)), "a job's docstring is its help"


@pytest.mark.parametrize(
    "path", sources("cluster", "jobs", "serve", "ssd1b"), ids=lambda path: str(path.relative_to(ROOT))
)
def test_a_file_says_why_it_exists(path: Path) -> None:
    text = path.read_text()
    assert not text.strip() or ast.get_docstring(ast.parse(text))


def test_every_recipe_builds_its_config() -> None:
    """And every module of recipes has some."""
    import importlib

    for path in sources("ssd1b/recipes"):
        if path.stem != "__init__":
            recipes = importlib.import_module(module_name(path)).RECIPES
            assert recipes
            for recipe in recipes.values():
                assert hash(type(recipe())), "a config is a frozen dataclass"
                assert type(recipe()).__dataclass_params__.frozen


def test_nothing_else_lies_at_the_top() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    if tracked.returncode:
        pytest.skip("not a git checkout")
    names = {line.partition("/")[0] for line in tracked.stdout.splitlines()}
    extra = {name for name in names if not name.startswith(".")} - TOP_LEVEL
    assert not extra
