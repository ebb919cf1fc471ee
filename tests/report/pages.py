"""A page read by an HTML parser: what is in it that could act, and whether its elements are closed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

__all__ = ["Page", "read", "without_times"]

_VOID = {"meta", "br", "img", "link", "input", "hr", "base", "source", "col", "area", "embed", "track", "wbr"}


@dataclass
class Page(HTMLParser):
    """What was found."""

    tags: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str, str]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        (self.styles if self.open and self.open[-1] == "style" else self.texts).append(data)

    @property
    def text(self) -> str:
        """All that is read."""
        return " ".join(" ".join(self.texts).split())

    def of(self, tag: str, name: str) -> list[str]:
        """The values of an attribute."""
        return [value for found, attribute, value in self.attributes if found == tag and attribute == name]

    @property
    def ids(self) -> list[str]:
        """Every id."""
        return [value for _, name, value in self.attributes if name == "id"]


def read(text: str) -> Page:
    """Parses a page to its end."""
    page = Page()
    page.feed(text)
    page.close()
    return page


def without_times(text: str) -> str:
    """The page without what hangs on when it was executed."""
    found = re.subn(r'<section id="times">.*?</section>', "", text, flags=re.DOTALL)
    assert found[1] == 1
    return found[0]
