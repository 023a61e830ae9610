"""Untrusted text made harmless, by the place that it goes to.

Names of domains and runs come from other people's files. HTML text and attributes are escaped by Jinja's autoescape;
the places that Jinja does not know are here.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import unicodedata
from typing import Any

# Control, format (bidirectional overrides, zero width), lone surrogates, line and paragraph separators
_UNSEEN_CATEGORIES = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_MARKDOWN_SIGNS = re.compile(r"[\\`*_\[\]~$#@]|:(?=\S)|(?<=www)\.", re.IGNORECASE)
_JOINERS = {"\u200c", "\u200d"}  # part of ordinary spelling in Persian, Hindi and emoji


def visible(text: str, *, keep: str = "") -> str:
    r"""``text`` with every character that does not show written as its escape, such as ``\x1b`` or ``\u202e``.

    Nothing that is left moves a terminal's cursor, reverses the text around it or fails to encode as UTF-8.
    Characters in ``keep`` are left alone.
    """
    return "".join(char if _is_seen(char) or char in keep else ascii(char)[1:-1] for char in text)


def _is_seen(char: str) -> bool:
    return unicodedata.category(char) not in _UNSEEN_CATEGORIES or char in _JOINERS


def markdown_text(text: str) -> str:
    r"""``text`` for a line or a table cell of Markdown: nothing in it is markup, HTML, a link, mathematics or a column.

    Entities for what HTML reads, because every renderer keeps them; a backslash before the rest.
    """
    escaped = _MARKDOWN_SIGNS.sub(r"\\\g<0>", html.escape(visible(text), quote=False))
    return escaped.replace("|", "&#124;")


def plotly_text(text: str) -> str:
    """``text`` for a label of Plotly, which would read ``<b>``, ``<a href>`` and ``&lt;`` in it as markup."""
    return html.escape(visible(text), quote=False)


def script_json(value: Any) -> str:
    r"""``value`` as JSON that can stand inside ``<script>``: nothing in it ends the element or opens a comment.

    All of ``< > &`` and everything outside ASCII (so U+2028 too) is written as ``\uXXXX``, which JSON reads back.
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def content_security_source(script: str) -> str:
    """The source expression that lets exactly this inline script run under a Content-Security-Policy."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
