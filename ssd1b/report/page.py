"""One evaluation as one HTML file that asks nobody for anything: styles, script and pictures are inside.

Whatever comes from outside, prompts above all, is escaped by the template engine. The page's own policy lets no script
run but the one whose hash it names, and nothing be fetched.
"""

import base64
import hashlib
from datetime import UTC, datetime
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ssd1b.models.lineage import weights
from ssd1b.report import facts, limits, rows, tables, verdict, words
from ssd1b.report.choice import choose
from ssd1b.report.evidence import Evidence
from ssd1b.report.plots import HEIGHT, WIDTH, Plot, plot

TEMPLATE, STYLE, SCRIPT = "page.html", "page.css", "page.js"


@cache
def templates() -> Environment:
    """Return the template engine; it escapes everything that the templates do not mark."""
    made = Environment(
        loader=PackageLoader("ssd1b.report", "page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {
        "number": words.number, "signed": words.signed, "percent": words.percent, "interval": words.interval,
        "weights": weights, "by": verdict.by,
    }  # fmt: skip
    return made


def text_of(file: str) -> str:
    """Return a file that the page is made of."""
    engine = templates()
    assert engine.loader is not None
    return engine.loader.get_source(engine, file)[0]


def render(evidence: Evidence) -> str:
    """Return the page.

    Raises:
        ValueError: a path of a picture leads out of the folder.
        OSError: a file among the pictures is none.
    """
    told, folder = evidence.document, evidence.folder
    choice, gates, script = choose(told.prompts), verdict.gates_of(told), text_of(SCRIPT)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return templates().get_template(TEMPLATE).render(
        document=told,
        style=Markup(text_of(STYLE)),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
        when=when(told.when),
        verdict=verdict.line(told, gates),
        gates=gates,
        cards=verdict.cards(told),
        choice=choice,
        sheet=rows.sheet(told, folder, choice),
        listing=rows.listing(told, folder, choice),
        bare=rows.bare(told, folder, choice),
        pairs=rows.pairs(told, folder, choice),
        heads=rows.SIDES,
        groups=tables.groups(told),
        adherence=tables.adherence(told),
        distances=tables.distances(told),
        metrics=tables.metrics(told),
        training=evidence.training,
        plots=plots(evidence),
        plot_size=(WIDTH, HEIGHT),
        parts=limits.parts(told, evidence.lineage.limits if evidence.lineage else ()),
        conditions=facts.conditions(told),
        measurers=facts.measurers(told),
        lineage=evidence.lineage,
        story=facts.story(evidence.lineage) if evidence.lineage else [],
    )  # fmt: skip


def plots(evidence: Evidence) -> list[Plot]:
    """Return the drawing of every stage that has finite points."""
    found = [plot(stage.name, stage.curves) for stage in evidence.training.stages]
    return [each for each in found if each is not None]


def when(iso: str) -> str:
    """Return a time as people read it, in UTC.

    Raises:
        ValueError: it is no ISO 8601.
    """
    if not iso:
        return "time not recorded"
    at = datetime.fromisoformat(iso).astimezone(UTC)
    return f"{at.day} {at:%B %Y, %H:%M} UTC"
