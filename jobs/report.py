"""Draw the page of an evaluation anew: python -m jobs.report RUN, or a folder.

RUN is the id of a run of jobs.evaluate: the page is kept in that run as report.html, in place of the one it has. A
folder holds evaluation.json, and beside it pictures/, lineage.json and curves.json or not: the page is written there.
Nothing is drawn or measured again.
"""

import argparse
from pathlib import Path
from typing import Any

from ssd1b.command import finish, show
from ssd1b.report import evidence
from ssd1b.report.page import render


def run(source: str) -> dict[str, Any]:
    if (folder := Path(source)).is_dir():
        page = folder / "report.html"
        page.write_text(render(evidence.read(folder)), encoding="utf-8")
        where = str(page.resolve())
    else:
        from ssd1b.report import runs  # a folder is drawn without MLflow

        with runs.fetched(source) as (tracked, aside):
            where = runs.keep(tracked, evidence.read(aside))
    show(f"the page is at {where}")
    return {"source": source, "report": where}


def command(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="RUN", help="id of a run of jobs.evaluate, or a folder")
    source = parser.parse_args(arguments).source
    finish(lambda: run(source))


if __name__ == "__main__":
    command()
