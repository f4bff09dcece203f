"""Just enough Gherkin to read other people's feature files: scenario outlines with tags, steps and one table of examples."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Scenario:
    """One row of a scenario outline: its `title`, `tags` without the @, and `steps` without their keyword, filled in."""

    title: str
    tags: frozenset[str]
    steps: list[str] = field(default_factory=list)


def scenarios(file: Path) -> list[Scenario]:
    """Every row of every outline in a feature file."""
    found: list[Scenario] = []
    tags: set[str] = set()
    title, steps, header = "", [], []  # type: tuple[str, list[str], list[str]]
    outline_tags: frozenset[str] = frozenset()
    for line in file.read_text().splitlines():
        text = line.strip()
        word, _, rest = text.partition(" ")
        if text.startswith("@"):
            tags |= {tag.removeprefix("@") for tag in text.split()}
        elif text.startswith("Scenario"):
            title, steps, header = text.partition(":")[2].strip(), [], []
            outline_tags, tags = frozenset(tags), set()
        elif word in ("Given", "When", "Then", "And", "But"):
            steps.append(rest.strip())
        elif text.startswith("|"):
            cells = [cell.strip() for cell in text.strip("|").split("|")]
            if not header:
                header = cells
                continue
            row = dict(zip(header, cells, strict=True))
            found.append(Scenario(_filled(title, row), outline_tags, [_filled(step, row) for step in steps]))
    return found


def _filled(text: str, row: dict[str, str]) -> str:
    for name, value in row.items():
        text = text.replace(f"<{name}>", value)
    return text
