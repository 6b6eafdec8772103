"""What SMPP's command_status and receipt states mean, as data; a channel may say otherwise for its own vendor."""

from __future__ import annotations

from worker.providers.base import LATER, UNCLEAR
from worker.providers.rules import BROADCAST, CHANNEL, DOWN, MESSAGE, PERSON, TOO_FAST, UNKNOWN, Rule

NOT_BOUND, ALREADY_BOUND = 0x04, 0x05
TEMPORARY = Rule(LATER)  # an answer, so the part was not taken; a few tries, then it is this message's failure
UNSURE = Rule(UNCLEAR)
STATUSES: dict[int, Rule] = {
    0x01: BROADCAST,  # message length
    0x04: DOWN,  # the SMSC has forgotten that we are bound
    0x08: TEMPORARY,  # system error
    0x0A: MESSAGE,  # sender
    0x0B: PERSON,  # recipient
    0x0D: CHANNEL,  # bind failed
    0x0E: CHANNEL,  # password
    0x0F: CHANNEL,  # system id
    0x14: TOO_FAST,  # queue full
    0x33: PERSON,  # number of destinations
    0x34: PERSON,  # destination list
    0x45: TEMPORARY,  # submit failed
    0x48: MESSAGE,  # sender's type of number
    0x49: MESSAGE,  # sender's numbering plan
    0x58: TOO_FAST,  # throttled
    0x61: BROADCAST,  # scheduled time
    0x62: BROADCAST,  # validity
    0x64: TEMPORARY,  # the SMSC's application, for now
    0x65: MESSAGE,  # the SMSC's application, for good
    0x66: MESSAGE,  # refused by the application: sender or text
    0xFE: PERSON,  # delivery failed
}
BIND: dict[int, Rule] = {0x0D: CHANNEL, 0x0E: CHANNEL, 0x0F: CHANNEL}  # anything else passes
# How an SMSC may refuse while it still holds the bind of a process that died.
LINGERING = (ALREADY_BOUND, 0x0D)
WAITING = Rule(LATER, slow_channel=True, counts=False)

# message_state and stat of a receipt; what is not here is kept and changes nothing
STATES = {
    1: "ENROUTE",
    2: "DELIVRD",
    3: "EXPIRED",
    4: "DELETED",
    5: "UNDELIV",
    6: "ACCEPTD",
    7: "UNKNOWN",
    8: "REJECTD",
}
RECEIPTS = {
    "ENROUTE": "sent",
    "ACCEPTD": "sent",
    "DELIVRD": "delivered",
    "EXPIRED": "failed",
    "DELETED": "failed",
    "UNDELIV": "failed",
    "REJECTD": "failed",
}

# The words of a channel's own map, "0x0400 = later".
MEANINGS: dict[str, Rule] = {
    "person": PERSON,
    "message": MESSAGE,
    "later": TEMPORARY,
    "slower": TOO_FAST,
    "unclear": UNSURE,
    "broadcast": BROADCAST,
    "channel": CHANNEL,
}


def cause(status: int) -> str:
    """The code under which a status is stored, such as smpp_0x0b."""
    return f"smpp_0x{status:02x}"


def own(lines: str) -> dict[int, Rule]:
    """A channel's own map, one "code = meaning" a line. Raises ValueError that names the line."""
    found: dict[int, Rule] = {}
    for line in lines.splitlines():
        text = line.partition("#")[0].strip()
        if not text:
            continue
        code, equals, meaning = (piece.strip().lower() for piece in text.partition("="))
        try:
            if not equals:
                raise ValueError
            found[int(code, 0)] = MEANINGS[meaning]
        except (ValueError, KeyError):
            raise ValueError(f"codes: {line.strip()}") from None
    return found


def rule(status: int, of_channel: dict[int, Rule]) -> Rule:
    """What a refusal means for one message."""
    return of_channel.get(status) or STATUSES.get(status, UNKNOWN)


def state(word: str) -> str:
    """The receipt state that a vendor's word stands for, however it is shortened; "" for none."""
    start = word.upper()[:5]
    return next((known for known in STATES.values() if len(start) == 5 and known.startswith(start)), "")
