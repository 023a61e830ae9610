import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doremi.text import content_security_source, plotly_text, script_json, visible

from .hostile import NAMES

ANY_TEXT = st.text(alphabet=st.characters())  # lone surrogates included


@pytest.mark.parametrize(("name", "shown"), NAMES.items())
def test_only_what_does_not_show_is_escaped(name, shown):
    assert visible(name) == shown


@settings(derandomize=True)
@given(ANY_TEXT)
def test_visible_text_can_be_written_and_cannot_steer_a_terminal(text):
    shown = visible(text)
    shown.encode("utf-8")
    assert not {unicodedata.category(char) for char in shown.replace("\u200c", "").replace("\u200d", "")} & {
        "Cc",
        "Cf",
        "Cs",
        "Zl",
        "Zp",
    }


def test_line_breaks_can_be_kept():
    assert visible("a\n\tb\x00", keep="\n\t") == "a\n\tb\\x00"


def test_joiners_that_spelling_needs_are_kept():
    assert visible("می\u200cخواهم") == "می\u200cخواهم"


@settings(derandomize=True)
@given(st.recursive(ANY_TEXT | st.integers() | st.none(), lambda c: st.lists(c) | st.dictionaries(ANY_TEXT, c)))
def test_json_in_a_script_reads_back_and_cannot_end_the_script(value):
    text = script_json(value)
    assert json.loads(text) == value
    assert not set("<>&") & set(text)
    assert text.isascii()


def test_json_refuses_what_javascript_cannot_read():
    with pytest.raises(ValueError, match="not JSON compliant"):
        script_json([float("nan")])


def test_plotly_gets_no_markup():
    assert plotly_text("<b>&amp;</b>\x1b") == "&lt;b&gt;&amp;amp;&lt;/b&gt;\\x1b"


def test_content_security_source_is_the_hash_that_browsers_compute():
    # printf 'alert(1)' | openssl dgst -sha256 -binary | base64
    assert content_security_source("alert(1)") == "'sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI='"
