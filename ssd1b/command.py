"""The command line of every job: `python -m jobs.NAME RECIPE [--set a.b=c ...]`.

A recipe is a function that returns a frozen dataclass; `--set` replaces fields of it, checked against their types.
While a job works it prints progress lines; the last line it prints is one compact JSON document.
"""

import argparse
import dataclasses
import difflib
import json
import sys
import time
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic import TypeAdapter, ValidationError

Recipes = Mapping[str, Callable[[], Any]]
Result = Mapping[str, Any]
REFUSED, PASSING = 2, 75
"""Exit statuses of a job that did not end well: a message says what to mend; a later start may do it (EX_TEMPFAIL)."""


def main(recipes: Recipes, job: Callable[[Any], Result], arguments: list[str] | None = None) -> None:
    """Run one job as a command: parse, call, print one JSON line last."""
    options = parsed(recipes, arguments)

    def named() -> Result:
        config = configure(recipes, options.recipe, options.set)
        show(f"{options.recipe}: {summary(config)}")
        return job(config)

    finish(named)


def read(recipes: Recipes, arguments: list[str] | None = None) -> Any:
    """Return the config that a command line asks for; ends the process with a message if there is no such."""
    options = parsed(recipes, arguments)
    with told():
        return configure(recipes, options.recipe, options.set)


def parsed(recipes: Recipes, arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(sys.modules["__main__"].__doc__ or "").strip())
    parser.add_argument("recipe", help=f"one of: {', '.join(sorted(recipes))}")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c", help="replace one field of the recipe")
    return parser.parse_args(arguments)


def finish(job: Callable[[], Result]) -> None:
    """Run a job and print its result as one JSON line (see `told` for one that does not end well)."""
    started = time.monotonic()
    with told():
        result = job()
    print(json.dumps({**result, "seconds": round(time.monotonic() - started, 1)}, default=str), flush=True)


@contextmanager
def told() -> Iterator[None]:
    """Within it, what a user can mend (ValueError, OSError) ends the process with a message and no traceback."""
    try:
        yield
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(PASSING if isinstance(error, ConnectionError) else REFUSED) from error


def configure(recipes: Recipes, name: str, settings: Iterable[str]) -> Any:
    """Return the named recipe's config with the settings ("a.b=c") applied.

    Raises:
        ValueError: no such recipe or key (the message names the nearest one), or a value of the wrong type.
    """
    if name not in recipes:
        raise ValueError(f"no recipe {name!r}{nearest(name, recipes)}; recipes: {', '.join(sorted(recipes))}")
    config = recipes[name]()
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise ValueError(f"--set {setting!r}: write key=value, for example --set {first_key(config)}=...")
        config = replace(config, key.split("."), value, key)
    return config


def replace(config: Any, path: list[str], value: str, key: str) -> Any:
    """Return config with the field at path set to the parsed value; path may pass through tuples by index."""
    name, rest = path[0], path[1:]
    if isinstance(config, tuple):
        if not name.isdigit() or int(name) >= len(config):
            raise ValueError(
                f"--set {key}: {name!r} is not an index; it has {len(config)} entries, 0 to {len(config) - 1}"
            )
        i = int(name)
        if not rest:
            raise ValueError(f"--set {key}: name a field of entry {i}: {', '.join(field_names(config[i]))}")
        return (*config[:i], replace(config[i], rest, value, key), *config[i + 1 :])
    if name not in field_names(config):
        raise ValueError(f"--set {key}: no key {name!r}{nearest(name, field_names(config))}; "
                         f"keys: {', '.join(field_names(config))}")  # fmt: skip
    if rest:
        return dataclasses.replace(config, **{name: replace(getattr(config, name), rest, value, key)})
    kind = typing.get_type_hints(type(config))[name]
    return dataclasses.replace(config, **{name: parse(kind, value, key)})


def parse(kind: Any, value: str, key: str) -> Any:
    """Read a value of the field's type: JSON where it is JSON, else the text itself."""
    adapter = TypeAdapter(kind)
    try:
        try:
            return adapter.validate_json(value)
        except ValidationError:
            return adapter.validate_python(value)
    except ValidationError as error:
        raise ValueError(f"--set {key}={value}: {error.errors()[0]['msg']}") from error


def summary(config: Any) -> str:
    """Return the config as Python would write it, without the fields that keep their defaults."""
    if isinstance(config, tuple) and any(map(dataclasses.is_dataclass, config)):
        return "(" + ", ".join(map(summary, config)) + ")"
    if not dataclasses.is_dataclass(config):
        return repr(config)
    set_here = [field.name for field in dataclasses.fields(config) if getattr(config, field.name) != field.default]
    return f"{type(config).__name__}({', '.join(f'{name}={summary(getattr(config, name))}' for name in set_here)})"


def field_names(config: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(config)] if dataclasses.is_dataclass(config) else []


def first_key(config: Any) -> str:
    return field_names(config)[0]


def nearest(name: str, known: Iterable[str]) -> str:
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    return f" (did you mean {match[0]!r}?)" if match else ""


def show(text: str) -> None:
    """Print one progress line."""
    print(text, flush=True)
