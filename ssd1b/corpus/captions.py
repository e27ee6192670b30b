"""Captions that read like prompts, several for one picture."""


def article(label: str) -> str:
    """Return the label with its indefinite article, or without one where English wants none.

    Plural nouns ("grapes", "chopsticks") and names that start with a capital ("Mount Fuji") take none.
    """
    first, last = label.split()[0], label.split()[-1]
    plural = last.endswith("s") and not last.endswith(("ss", "us", "is", "bus"))
    if plural or first[0].isupper():
        return label
    return f"{'an' if first[0].lower() in 'aeiou' else 'a'} {label}"


def captions(label: str, tags: list[str], style: str) -> list[str]:
    """Return four captions of one picture: what it shows, in what style, in unlike word orders.

    The last one carries up to two tags that are not words of the label, so that synonyms are learned too.
    """
    words = set(label.lower().split())
    extra = [tag for tag in tags if not words & set(tag.lower().split())][:2]
    return [
        f"{article(label)}, {style} style",
        f"{style} of {article(label)}",
        f"{label}, {style}",
        f"{article(label)}, {', '.join([*extra, style])} style" if extra else f"a picture of {article(label)}, {style}",
    ]
