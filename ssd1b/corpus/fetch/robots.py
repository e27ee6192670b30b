"""What a host asks of robots: robots.txt (RFC 9309) and the X-Robots-Tag header.

Read here rather than with the standard library's parser, which takes the first rule that fits instead of the longest
and knows no `*` and `$`: it would fetch what `Disallow: /*.jpg$` asks to leave alone. Crawl-delay is not in the RFC;
the recipe's pause between requests to a host stands in for it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

PRODUCT = "ssd-corpus"
"""Our product token: letters, underscores and hyphens (RFC 9309 2.2.1)."""
MOST_BYTES = 512 * 1024
"""Of a robots.txt; RFC 9309 2.5 asks for at least 500 kibibytes."""
VALUED = ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview")
"""Directives of X-Robots-Tag that have a colon of their own."""


@dataclass(frozen=True)
class Rule:
    """One line of a group."""

    allow: bool
    pattern: str


@dataclass(frozen=True)
class Robots:
    """The rules of each user agent's groups, under its product token in lower case."""

    groups: tuple[tuple[str, tuple[Rule, ...]], ...] = ()

    def rules_for(self, product: str) -> tuple[Rule, ...]:
        """Return the rules of all groups that name a product, or else of those that name everyone."""
        for wanted in (product.lower(), "*"):
            if any(agent == wanted for agent, _ in self.groups):
                return tuple(rule for agent, rules in self.groups if agent == wanted for rule in rules)
        return ()

    def allows(self, product: str, target: str) -> bool:
        """Say whether a path with query may be fetched: the longest rule that fits decides, allow among equals."""
        path = canonical(target)
        if path == "/robots.txt":
            return True
        fitting = [rule for rule in self.rules_for(product) if fits(rule.pattern, path)]
        return max(((len(rule.pattern), rule.allow) for rule in fitting), default=(0, True))[1]


EVERYTHING = Robots()
"""What a host allows that has no robots.txt."""


def parse(text: str) -> Robots:
    """Return the groups of a robots.txt; lines that are no rules are passed over, as RFC 9309 2.2 asks."""
    groups: list[tuple[str, tuple[Rule, ...]]] = []
    agents: list[str] = []
    rules: list[Rule] = []

    def close() -> None:
        groups.extend((agent, tuple(rules)) for agent in agents)

    naming = False
    for line in text.removeprefix("\ufeff").splitlines():
        field, colon, value = line.partition("#")[0].partition(":")
        field, value = field.strip().lower(), value.strip()
        if not colon:
            continue
        if field == "user-agent":
            if not naming:
                close()
                agents, rules = [], []
            naming = True
            agents.append(token(value))
        elif field in ("allow", "disallow"):
            naming = False
            if value:
                rules.append(Rule(allow=field == "allow", pattern=canonical(value)))
    close()
    return Robots(tuple(groups))


def token(value: str) -> str:
    """Return the product token of a user-agent line in lower case, without a version behind it."""
    found = re.match(r"\*|[A-Za-z_-]+", value)
    return found[0].lower() if found else ""


def canonical(path: str) -> str:
    """Return a path with every octet that needs it percent-encoded and no other, so that patterns compare."""

    def normal(match: re.Match[str]) -> str:
        letter = chr(int(match[1], 16))
        plain = letter.isascii() and (letter.isalnum() or letter in "-._~")
        return letter if plain else match[0].upper()

    encoded = "".join(c if c.isascii() else "".join(f"%{byte:02X}" for byte in c.encode()) for c in path)
    return re.sub(r"%([0-9A-Fa-f]{2})", normal, encoded)


def fits(pattern: str, path: str) -> bool:
    """Say whether a pattern fits the start of a path; `*` is any run of characters, a `$` at the end is the path's end.

    Each piece between stars is searched once, left to right: no pattern makes this slow.
    """
    anchored = pattern.endswith("$")
    first, *pieces = pattern.removesuffix("$").split("*")
    if not path.startswith(first):
        return False
    at = len(first)
    if not pieces:
        return not anchored or at == len(path)
    last = pieces.pop() if anchored else ""
    for piece in pieces:
        at = path.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return not anchored or (path.endswith(last) and len(path) - len(last) >= at)


def opted_out(headers: Sequence[str], product: str, refused: Sequence[str]) -> str | None:
    """Return the first refused directive that the values of X-Robots-Tag address to us or to everyone.

    A value is `noai, noimageai` or `otherbot: noai`; an agent's name holds until the next one in the same value.
    """
    for value in headers:
        addressed = True
        for part in value.lower().split(","):
            name, colon, rest = (text.strip() for text in part.partition(":"))
            directive = name
            if colon and name not in VALUED:
                addressed, directive = token(name) in (product, "*"), rest
            if addressed and directive in refused:
                return directive
    return None
