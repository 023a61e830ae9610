"""A page taken apart as a browser would: its tables as text, every tag with its attributes, its scripts."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "input", "br", "link", "img"}


@dataclass
class Page(HTMLParser):
    """What `parse_page` returns. ``tables`` holds the cells' text of every row, ``text`` all that is visible."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    open_tags: list[str] = field(default_factory=list)
    tables: list[list[list[str]]] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in VOID:
            self.open_tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        inside = self.open_tags[-1] if self.open_tags else ""
        if inside == "script":
            self.scripts.append(data)
        elif inside == "style":
            self.styles.append(data)
        else:
            self.text += data
            if {"td", "th"} & set(self.open_tags):
                self.tables[-1][-1][-1] += data

    def table(self, css_class: str) -> list[list[str]]:
        """The rows of the first table of this class, white space squeezed."""
        return self.tables_of(css_class)[0]

    def tables_of(self, css_class: str) -> list[list[list[str]]]:
        """All tables of this class."""
        classes = [(attrs.get("class") or "").split() for tag, attrs in self.tags if tag == "table"]
        found = [rows for rows, names in zip(self.tables, classes, strict=True) if css_class in names]
        return [[[" ".join(cell.split()) for cell in row] for row in rows] for rows in found]


def parse_page(html: str) -> Page:
    """Parse ``html``; fails where elements are not nested properly."""
    page = Page()
    page.feed(html)
    page.close()
    assert not page.open_tags, f"never closed: {page.open_tags}"
    return page
