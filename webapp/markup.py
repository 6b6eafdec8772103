"""The marks of a WhatsApp text as a phone shows them: *bold*, _italic_, ~struck~, ```fixed```, and nothing else."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

# A mark stands at the edge of a word and holds something that neither begins nor ends with a space.
_MARKS = (
    (re.compile(r"```(?=\S)([^\n]+?)(?<=\S)```"), "code"),
    (re.compile(r"(?<![\w*])\*(?=[^\s*])([^*\n]*?[^\s*])\*(?![\w*])"), "strong"),
    (re.compile(r"(?<![\w_])_(?=[^\s_])([^_\n]*?[^\s_])_(?![\w_])"), "em"),
    (re.compile(r"(?<![\w~])~(?=[^\s~])([^~\n]*?[^\s~])~(?![\w~])"), "del"),
)


def chat(text: str) -> Markup:
    """The text, escaped, with its marks as elements."""
    shown = str(escape(text))
    for pattern, element in _MARKS:
        shown = pattern.sub(rf"<{element}>\1</{element}>", shown)
    return Markup(shown)  # noqa: S704  # escaped above, and only our own elements were added
