"""What was said in a conversation: the person's messages, the broadcast messages that they got, our answers.

Each of the three is kept in its own table and order. A page merges the latest of each; its cursor says how far
back each of them has been shown.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from worker import attachments, broadcasts, db, direct, optouts, rendering
from worker.models import Attachment, Broadcast, Conversation, RecipientFile
from worker.states import TAKEN, sql_list

PAGE = 50
PAGE_MAX = 500
TEXT, TEMPLATE, REACTION = "text", "template", "reaction"
_END = 2**62


class Entry(NamedTuple):
    """One message. `id`: of the person's message, or of ours by which it can be resolved. `at`: when it was sent, ms.

    `text` None: not kept. `status`, `cause`, `waiting` (a code: why it does not leave): of ours only. `made_by`: who
    answered; "" for a broadcast's message, whose `broadcast_id` it carries. A person's message carries the broadcast
    and the message that it answers. `word`: OUT, BACK or HELP of worker.stopwords where the whole of it is such a word.
    """

    id: int
    direction: str  # in, out
    kind: str
    text: str | None
    at: int
    provider_id: str | None
    broadcast_id: int | None = None
    message_id: int | None = None
    status: str | None = None
    cause: str | None = None
    cause_text: str | None = None
    made_by: str = ""
    waiting: str | None = None
    word: str | None = None
    files: tuple[Attachment, ...] = ()


@dataclass(frozen=True)
class Page:
    """Messages, oldest first. `earlier`: the cursor of those before; None when there are none."""

    items: list[Entry]
    earlier: str | None


class _Place(NamedTuple):
    """Where the next page goes on in one of the sources: below this time and id."""

    at: int = _END
    id: int = _END


Found = list[tuple[_Place, Any]]


def page(conversation: Conversation, before: str = "", limit: int = PAGE) -> Page:
    """The latest `limit` messages before a cursor. Raises ValueError for a cursor that is not one of ours."""
    limit = max(1, min(limit, PAGE_MAX))
    places = _places(before) if before else [_Place()] * len(_SOURCES)
    found = [source(conversation, place, limit + 1) for source, place in zip(_SOURCES, places, strict=True)]
    merged = sorted(
        ((place, kind, row) for kind, rows in enumerate(found) for place, row in rows),
        key=lambda one: (one[0].at, one[1], one[0].id),
        reverse=True,
    )
    for place, kind, _row in merged[:limit]:
        places[kind] = min(places[kind], place)
    items = [row for _place, _kind, row in merged[:limit]]
    earlier = "-".join(f"{place.at}.{place.id}" for place in places) if len(merged) > limit else None
    return Page(_in_order(_complete(items)), earlier)


def _places(before: str) -> list[_Place]:
    parts = [part.split(".") for part in before.split("-")]
    numbers = [number for pair in parts for number in pair]
    if len(parts) != len(_SOURCES) or any(len(pair) != 2 for pair in parts):
        raise ValueError("before")
    if not all(number.isascii() and number.isdigit() and len(number) < 20 for number in numbers):
        raise ValueError("before")
    return [_Place(min(int(at), _END), min(int(id_), _END)) for at, id_ in parts]


def _inbound(conversation: Conversation, place: _Place, limit: int) -> Found:
    rows = db.rows(
        "SELECT id, kind, text, at, provider_id, broadcast_id, message_id FROM inbound"
        " WHERE conversation_id = ? AND (at, id) < (?, ?) ORDER BY at DESC, id DESC LIMIT ?",
        [conversation.id, *place, limit],
    )
    found: Found = []
    words = optouts.stop_words()
    for id_, kind, text, at, *facts in rows:
        said = Entry(id_, "in", kind, text or "", at, *facts)
        found.append((_Place(at, id_), said._replace(word=words.meaning(said.text or ""))))
    return found


def answer(direct_id: int) -> Entry:
    """One answer of ours, by the number of its single message."""
    (sent,) = direct.by_ids([direct_id])
    return _answer(sent)


def _answers(conversation: Conversation, place: _Place, limit: int) -> Found:
    found: Found = []
    at = 0
    for sent in direct.of_conversation(conversation.id, place.id, limit):
        at = max(at, sent.at)  # they are kept in the order of their ids, whatever the clock did
        found.append((_Place(at, sent.id), _answer(sent)))
    return found


def _answer(sent: direct.Sent) -> Entry:
    return Entry(
        sent.message_id,
        "out",
        TEMPLATE if sent.is_template else TEXT,
        sent.text,
        sent.at,
        sent.provider_id,
        status=sent.status,
        cause=sent.cause,
        cause_text=sent.cause_text,
        made_by=sent.made_by,
        waiting=sent.waiting,
    )


class _Sent(NamedTuple):
    """A broadcast's message to the person, not rendered yet."""

    id: int
    broadcast_id: int
    file_id: int
    phone: str
    row: str | None
    status: str
    cause: str | None
    cause_text: str | None
    provider_id: str | None
    text_version: int | None
    at: int


# The partial index of the numbers is taken for these very words.
_BROADCAST_MESSAGES = (
    "SELECT m.id, m.broadcast_id, m.file_id, m.phone, m.row, m.status, m.cause, m.cause_text, m.provider_id,"  # noqa: S608
    " m.text_version, m.sending_at FROM message m JOIN broadcast b ON b.id = m.broadcast_id"
    f" WHERE m.phone = ? AND m.status <> 'queued' AND m.status IN {sql_list(TAKEN)} AND b.channel_id = ?"
    f" AND b.kind <> '{broadcasts.DIRECT}' AND (m.sending_at, m.id) < (?, ?)"
    " ORDER BY m.sending_at DESC, m.id DESC LIMIT ?"
)


def _broadcast_messages(conversation: Conversation, place: _Place, limit: int) -> Found:
    rows = db.rows(_BROADCAST_MESSAGES, [conversation.phone, conversation.channel_id, *place, limit])
    return [(_Place(sent.at, sent.id), sent) for sent in (_Sent(*row) for row in rows)]


_SOURCES = (_broadcast_messages, _inbound, _answers)


def _complete(items: list[Any]) -> list[Entry]:
    """Render the broadcasts' messages and add the files."""
    texts = _Texts()
    files = attachments.of_inbound(item.id for item in items if isinstance(item, Entry) and item.direction == "in")
    return [
        texts.entry(item)
        if isinstance(item, _Sent)
        else item._replace(files=tuple(files.get(item.id, ())))
        if item.direction == "in"
        else item
        for item in items
    ]


def _in_order(items: list[Entry]) -> list[Entry]:
    """Oldest first. Vendors tell whole seconds, so a quick reply seems to precede the message that it answers."""
    sent = {item.id: item.at for item in items if item.direction == "out" and item.broadcast_id}

    def place(item: Entry) -> tuple[int, bool, int]:
        answered = sent.get(item.message_id or 0, 0) if item.direction == "in" else 0
        return max(item.at, answered), item.direction == "in" or not item.broadcast_id, item.id

    return sorted(items, key=place)


class _Texts:
    """The texts of messages of broadcasts; each broadcast and each file is looked up once."""

    def __init__(self) -> None:
        self._contents: dict[int, tuple[rendering.Content | None, int]] = {}
        self._renderers: dict[int, rendering.Renderer | None] = {}

    def entry(self, sent: _Sent) -> Entry:
        content, version = self._content(sent.broadcast_id)
        kind = TEMPLATE if content is not None and content.template is not None else TEXT
        # A text that was changed since is not what the person has read.
        text = self._text(sent, content) if version == (sent.text_version or version) else None
        why = (sent.status, sent.cause, sent.cause_text)
        return Entry(sent.id, "out", kind, text, sent.at, sent.provider_id, sent.broadcast_id, sent.id, *why)

    def _content(self, broadcast_id: int) -> tuple[rendering.Content | None, int]:
        if broadcast_id not in self._contents:
            broadcast = Broadcast.get_by_id(broadcast_id)
            self._contents[broadcast_id] = (broadcasts.content(broadcast), broadcast.text_version)
        return self._contents[broadcast_id]

    def _text(self, sent: _Sent, content: rendering.Content | None) -> str | None:
        if sent.file_id not in self._renderers:
            file = RecipientFile.get_or_none(RecipientFile.id == sent.file_id)
            try:
                bound = content.bind(file.columns or ["phone"]) if content is not None and file is not None else None
            except rendering.MissingColumns:
                bound = None
            self._renderers[sent.file_id] = bound
        renderer = self._renderers[sent.file_id]
        try:
            cells = json.loads(sent.row) if sent.row else [sent.phone]
            return renderer.render(cells).text if renderer is not None else None
        except rendering.RowError:
            return None
