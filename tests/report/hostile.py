"""Names that break a page or a terminal which trusts them, with how they must show."""

NAMES = {
    "<script>alert(1)</script>": "<script>alert(1)</script>",
    "</script><!--": "</script><!--",
    "\"onmouseover='alert(2)' x=\"": "\"onmouseover='alert(2)' x=\"",
    "<b>bold</b> &amp; %{x} $x^2$": "<b>bold</b> &amp; %{x} $x^2$",
    "{{ 7*7 }}{% raw %}": "{{ 7*7 }}{% raw %}",
    "[red]x[/red] :smile:": "[red]x[/red] :smile:",
    "\u202egnp.exe\x1b[31m": "\\u202egnp.exe\\x1b[31m",
    "line\u2028separator\ttab": "line\\u2028separator\\ttab",
    "\ud800 alone": "\\ud800 alone",
    "Übersetzungen 日本語": "Übersetzungen 日本語",
    "عربي": "عربي",
    "javascript:alert(1)": "javascript:alert(1)",
}
