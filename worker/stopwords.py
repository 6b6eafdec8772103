"""The words by which people leave the broadcasts, come back, or ask for help.

Only a whole message counts, never a word inside one: "don't stop" is no stop.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

OUT, BACK, HELP = "out", "back", "help"

LEAVING = (
    *("STOP", "STOPALL", "STOP ALL", "UNSUBSCRIBE", "CANCEL", "QUIT"),
    *("OPT-OUT", "OPT OUT", "OPTOUT", "REMOVE", "ARRET", "TD"),
    *("СТОП", "СТОП РАССЫЛКА", "ОТПИСКА", "ОТПИСАТЬСЯ", "ОТПИШИТЕ", "ОТКАЗ", "НЕТ РАССЫЛКЕ", "ТОҚТА"),
)
RETURNING = ("START", "UNSTOP")
ASKING = ("HELP", "INFO")
# Off until somebody switches them on: people say them in everyday answers.
LEAVING_OPTIONAL = ("END", "ОТМЕНА", "НЕТ")
RETURNING_OPTIONAL = ("YES",)
OPTIONAL = (*LEAVING_OPTIONAL, *RETURNING_OPTIONAL)

# Latin letters that look like Cyrillic ones: CTOП is a stop word whichever keyboard was on.
_LOOKALIKE = str.maketrans("aceopxytkmhb", "асеорхуткмнв")
_CYRILLIC = re.compile("[\u0400-\u052f]")
_ENDS = re.compile(r"^[\W_]+|[\W_]+$")


def folded(text: str) -> str:
    """A message as it is compared: without case, marks at its ends, doubled spaces, ё; "" when nothing is left."""
    plain = unicodedata.normalize("NFKC", text).casefold().replace("ё", "е")
    return _ENDS.sub("", " ".join(plain.split()))


def is_cyrillic(text: str) -> bool:
    """Whether any letter is a Cyrillic one."""
    return _CYRILLIC.search(text) is not None


def _compared(text: str) -> str:
    plain = folded(text)
    return plain.translate(_LOOKALIKE) if is_cyrillic(plain) else plain


@dataclass(frozen=True)
class Words:
    """What counts here. `extra`: an installation's own words for leaving; `on`: the OPTIONAL ones in use."""

    extra: tuple[str, ...] = ()
    on: tuple[str, ...] = ()

    def meaning(self, text: str) -> str | None:
        """OUT, BACK or HELP when the whole message is such a word, else None."""
        return _meanings(self).get(_compared(text))


DEFAULT = Words()


@lru_cache(8)
def _meanings(words: Words) -> dict[str, str]:
    lists = {
        HELP: ASKING,
        BACK: (*RETURNING, *(word for word in RETURNING_OPTIONAL if word in words.on)),
        OUT: (*LEAVING, *words.extra, *(word for word in LEAVING_OPTIONAL if word in words.on)),
    }
    # Written with a Cyrillic letter in it, a Latin word is compared with its look-alikes turned as well.
    return {
        form: meaning
        for meaning, members in lists.items()
        for word in members
        for form in (folded(word), folded(word).translate(_LOOKALIKE))
    }


def is_stop_word(text: str) -> bool:
    """Whether the whole text is one of the words for leaving that everybody knows."""
    return DEFAULT.meaning(text) == OUT
