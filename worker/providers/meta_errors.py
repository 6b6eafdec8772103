"""What the error codes of the WhatsApp Cloud API mean, in answers and in reports of failure alike.

The code decides, never the HTTP status (the same code is seen with several) and never the text. An
error envelope is an answer: the vendor refused, so nothing was sent, whatever the status.
"""

from __future__ import annotations

from worker.providers.base import LATER, STOP_BROADCAST
from worker.providers.rules import BROADCAST, CHANNEL, DOWN, MESSAGE, PERSON, TOO_FAST, UNKNOWN, Rule

ERRORS: dict[int, Rule] = {
    # access to the account
    0: CHANNEL,  # the token cannot authenticate
    3: CHANNEL,  # capability or permission missing
    10: CHANNEL,  # permission missing or taken away
    33: CHANNEL,  # the phone number id is wrong or deleted
    190: CHANNEL,  # the token expired or was revoked
    200: CHANNEL,  # 200-299: permission
    131005: CHANNEL,  # access denied
    # the account, its number, its money
    368: CHANNEL,  # policy block
    131031: CHANNEL,  # account locked
    131037: CHANNEL,  # display name not approved
    131042: CHANNEL,  # billing or eligibility
    131045: CHANNEL,  # number registration
    131048: CHANNEL,  # spam limit: a person decides
    131064: CHANNEL,  # limit after templates in a wrong category; ends by itself
    133000: CHANNEL,
    133005: CHANNEL,
    133006: CHANNEL,
    133008: CHANNEL,
    133009: CHANNEL,
    133010: CHANNEL,  # number not registered
    133015: CHANNEL,
    133016: CHANNEL,
    134011: CHANNEL,  # payment terms not accepted
    # the template
    131055: BROADCAST,  # the marketing endpoint takes marketing templates only
    131061: BROADCAST,  # a template with a price limit needs the marketing endpoint
    131063: BROADCAST,  # marketing templates are switched off on the ordinary endpoint
    132000: BROADCAST,  # number of parameters
    132001: BROADCAST,  # no such name and language, or not approved
    132007: BROADCAST,  # content policy
    132008: BROADCAST,  # parameter value
    132012: BROADCAST,  # parameter format
    132015: BROADCAST,  # paused
    132016: BROADCAST,  # disabled
    132068: BROADCAST,  # flow blocked
    134100: BROADCAST,  # marketing endpoint: wrong category
    134102: BROADCAST,  # not available on the marketing endpoint
    # busy, down, too fast
    1: Rule(LATER, breaker=True, budget=2),  # bad request or a fault of theirs: nobody can tell
    2: DOWN,
    4: TOO_FAST,  # calls of the app
    613: TOO_FAST,
    80007: TOO_FAST,  # calls of the account
    130429: TOO_FAST,  # throughput of the number
    131000: Rule(LATER, breaker=True, budget=3),
    131016: DOWN,
    131053: Rule(LATER, budget=1, then=STOP_BROADCAST),  # the header's file is the same for everybody
    131056: Rule(LATER, wait=60),  # too many to this one person: the others go on
    131057: TOO_FAST._replace(wait=60),  # maintenance of the number, minutes
    132069: Rule(LATER, wait=3600, counts=False),  # a throttled flow: about ten an hour
    133004: DOWN,
    134101: Rule(LATER, wait=120, counts=False),  # a new template, up to ten minutes
    2494100: TOO_FAST._replace(wait=60),
    # this person
    130403: PERSON,  # our business has blocked them
    130472: PERSON,  # part of an experiment of the vendor
    130497: PERSON,  # their country is not allowed
    131021: PERSON,  # they are the sender
    131026: PERSON,  # not on WhatsApp, or cannot receive this
    131047: PERSON,  # reply window closed
    131049: PERSON,  # marketing limit of this person
    131050: PERSON,  # has stopped marketing
    131052: PERSON,
    131062: PERSON,  # needs a phone number
    137000: PERSON,
    # the message: one bad row, or the same fault for everybody
    100: MESSAGE,
    131008: MESSAGE,
    131009: MESSAGE,
    131030: MESSAGE,  # a test number whose list of allowed recipients lacks this one: says nothing about them
    131051: MESSAGE,
    132005: MESSAGE,  # too long after substitution
    132018: MESSAGE,  # line break, tab or many spaces
    135000: MESSAGE,
}

_WRONG_ID = 33


def meaning(code: int, subcode: int | None = None) -> tuple[int, Rule]:
    """The code that counts and its rule. Codes that nobody has heard of fail their one message."""
    if code == 100 and subcode == _WRONG_ID:
        return _WRONG_ID, CHANNEL  # a wrong number id comes as "bad parameter" with this second code
    if 200 <= code <= 299:
        return code, CHANNEL
    return code, ERRORS.get(code, UNKNOWN)
