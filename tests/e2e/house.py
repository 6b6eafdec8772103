"""An installation in which everything has happened once, and the web server alone in front of it: nothing moves."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from flask import Flask, abort
from waitress.server import create_server

from tests import make, people
from webapp import auth, create_app
from webapp.sandbox import TEMPLATES
from worker import audit, channels, clock, db, migrations, webhooks
from worker import people as accounts
from worker.models import (
    ApiToken,
    Attempt,
    Broadcast,
    Channel,
    Conversation,
    DeliveryReport,
    Direct,
    Inbound,
    Message,
    MessageTemplate,
    OptOut,
    OptOutEvent,
    QuickAnswer,
    RejectedRow,
    Run,
    User,
    Webhook,
    WebhookDelivery,
)
from worker.settings import Settings

LONG = "Напоминаем: запись на 14 ноября в 10:30. Перенести: https://example.org/zapis/ochen-dlinnaya-ssylka-bez-probelov-12345"
CAUSES = ("sms_unknown_subscriber", "131026", "131049", "sms_absent")
STATUSES = [400, 403, 405, 413, 422, 429, 500, 503]

Numbers = dict[str, int]


class House:
    """A standing installation: its address, its application, the numbers of what is in it, and who may look."""

    def __init__(self, app: Flask, numbers: Numbers) -> None:
        self.app = app
        self.numbers = numbers
        self._port = 0
        self.open()

    def open(self) -> None:
        """Answer, always at the same address."""
        self._server = create_server(self.app, host="127.0.0.1", port=self._port, threads=8, map={})
        self._port = self._server.effective_port
        self._thread = threading.Thread(target=self._serve, name="house", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # closed under its hands
            self._server.run()

    def close(self) -> None:
        """Answer nobody any more."""
        self._server.close()
        for line in list(self._server._map.values()):
            line.handle_close()
        self._thread.join(5)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def cookie(self, role: str) -> dict[str, str]:
        """The login of a person with this role, as a browser keeps it."""
        browser = people.signed_in(self.app, User.get(User.role == role))
        name = self.app.session_interface.get_cookie_name(self.app)
        kept = browser.client.get_cookie(name)
        assert kept is not None
        return {"name": name, "value": kept.value, "url": self.url}


@contextlib.contextmanager
def standing(data: Path, fill: Callable[[Settings], Numbers]) -> Iterator[House]:
    """The web server over the tables that `fill` makes. There is no worker: what runs, runs for ever."""
    settings = Settings(data=data, secret_key="only for tests, never for a real installation")
    data.mkdir(mode=0o700)
    db.open_database(settings)
    migrations.upgrade()
    with db.connection():
        channels.ensure_sandbox(settings)
        numbers = fill(settings)
        app = create_app(settings)
        app.add_url_rule("/answers/<int:status>", "answers", auth.public(_answer))
        house = House(app, numbers)
        try:
            yield house
        finally:
            house.close()
    db.close()


def _answer(status: int) -> str:
    """The page of an error."""
    if status == 500:
        raise ZeroDivisionError("a fault that a test asked for")
    abort(status)


# Broadcasts by what stands out about each.
STATES = (
    "empty",
    "ready",
    "scheduled",
    "running",
    "waiting",
    "stopped",
    "halted",
    "awaiting",
    "uncertain",
    "done",
    "template",
    "lost",
)


def nothing(_settings: Settings) -> Numbers:
    """Before the first administrator."""
    return {}


def first_day(_settings: Settings) -> Numbers:
    """The first administrator has just signed in."""
    people.person("admin")
    return {}


def everything(settings: Settings) -> Numbers:
    """People, channels, broadcasts in every state, files in every state, replies, the stop list."""
    for role in ("admin", "sender", "viewer"):
        people.person(role)
    make.token("sender", "warehouse")
    # Its heart beats for the whole time that anybody looks.
    make.worker(heartbeat_at=clock.now() + clock.HOUR)
    numbers = _channels(settings) | _broadcasts() | _conversations() | _machines()
    for name in ("broadcast.create", "broadcast.start", "file.remove", "channel.change"):
        audit.record("admin@example.org", name, "1", fields=["text"])
    return numbers


def _channels(settings: Settings) -> Numbers:
    sms, waba = (Channel.get(Channel.provider == name) for name in ("sandbox_sms", "sandbox_waba"))
    now = clock.now()
    for given in TEMPLATES:
        MessageTemplate.create(
            channel=waba,
            name=given["name"],
            language=given["language"],
            status=given["status"],
            category=given["category"],
            parameter_format=given.get("parameter_format", "POSITIONAL"),
            components=given["components"],
            synced_at=now,
        )
    cloud = channels.create(
        settings,
        "whatsapp_cloud",
        "Доставка, основной номер",
        {"phone_number_id": "1", "waba_id": "2", "access_token": "EAAG1234", "app_secret": "f00d", "verify_token": "v"},
    )
    channels.create(settings, "sms_ru", "Сервисные СМС", {"base_url": "https://sms.ru", "token": "f00d1234"})
    columns = {"state": "stopped", "stop_reason": "190", "stop_detail": {"text": "Session expired"}, "stopped_at": now}
    Channel.update(**columns).where(Channel.id == cloud.id).execute()
    return {"sms": sms.id, "waba": waba.id, "cloud": cloud.id}


def _broadcasts() -> Numbers:
    now = clock.now()
    sms = Channel.get(Channel.provider == "sandbox_sms")
    sent = {"sent_at": now - 90_000, "sending_at": now - 91_000, "provider_id": "sb-1"}

    def made(state: str, name: str, **columns: object) -> Broadcast:
        return make.broadcast(**{"state": state, "name": name, "channel": sms, "text": LONG, **columns})

    def filled(row: Broadcast, *statuses: str, **columns: object) -> Broadcast:
        accepted = len(statuses)
        file = make.file(row, name="Покупатели ноября.csv", rows=accepted, accepted=accepted, columns=["phone", "name"])
        make.messages(file, *statuses, row='["+79001112233","Анна"]', **columns)
        Run.update(started_at=now - clock.HOUR if row.state not in ("draft", "scheduled") else None).where(
            Run.broadcast == row.id
        ).execute()
        return row

    empty = made("draft", "Черновик без получателей", text=None)
    ready = filled(made("draft", "Готова к отправке"), *["queued"] * 12)
    scheduled = filled(made("scheduled", "На завтра", send_at=now + 20 * clock.HOUR), *["queued"] * 5)
    running = made("running", "Скидки выходного дня", speed=480, last_sent_at=now - 2_000)
    filled(
        running,
        *["queued"] * 9,
        "sending",
        *["sent"] * 4,
        *["delivered"] * 6,
        "read",
        "failed",
        cause=CAUSES[0],
        **sent,
    )
    waiting = made("running", "Ждёт утра", waiting={"code": "breaker", "until": now + clock.HOUR})
    filled(waiting, *["queued"] * 3, "held", cause=None)
    stopped = made(
        "stopped", "Остановлена человеком", stop_reason="person", stop_detail={"by": "anna@example.org"}, stopped_at=now
    )
    filled(stopped, *["queued"] * 3, "sent", "delivered", **sent)
    halted = made(
        "stopped", "Остановлена по причине", stop_reason="channel", stop_detail={"cause": "190"}, stopped_at=now
    )
    filled(halted, *["queued"] * 3, "failed", cause="190")
    awaiting = filled(made("finished", "Ждёт отчётов", last_sent_at=now), "sent", "sent", "delivered", **sent)
    uncertain = filled(made("finished", "С неясными", last_sent_at=now), "uncertain", "delivered", "skipped", **sent)
    done = made("finished", "Доставлена", last_sent_at=now - clock.HOUR)
    filled(done, *["delivered"] * 5, *["read"] * 3, "undelivered", "cancelled", **sent)
    waba = Channel.get(Channel.provider == "sandbox_waba")
    template = made("draft", "По шаблону", channel=waba, text=None)
    lost = made("finished", "Многих нет в WhatsApp", channel=waba, text=None, last_sent_at=now - clock.HOUR)
    list_ = make.file(lost, name="вся база.csv", rows=9, accepted=9, columns=["phone", "name"])
    make.messages(list_, *["read"] * 4, **sent)
    for cause in (CAUSES[1], CAUSES[2]):
        make.messages(list_, "failed", "failed", cause=cause, row='["+79001112233","Анна"]')
    failed = make.messages(
        make.file(done, name="второй.csv", role="appended"),
        *["failed"] * 4,
        cause=CAUSES[1],
        cause_text="Message undeliverable",
    )
    Run.update(finished_at=now - clock.HOUR).where(
        Run.broadcast.in_([awaiting.id, uncertain.id, done.id, lost.id])
    ).execute()
    _story(failed[0], sms)
    files = _files(made("draft", "Файлы во всех состояниях"))
    rows = (empty, ready, scheduled, running, waiting, stopped, halted, awaiting, uncertain, done, template, lost)
    found = {name: row.id for name, row in zip(STATES, rows, strict=True)} | files
    undecided = Message.get(Message.broadcast_id == uncertain.id, Message.status == "uncertain")
    return found | {"failed": failed[0].id, "undecided": undecided.id}


def _story(message: Message, channel: Channel) -> None:
    """One message that was postponed, accepted, and did not arrive."""
    now = clock.now()
    Attempt.create(
        message_id=message.id,
        token="1.a",
        at=now - 50_000,
        outcome="postponed",
        http_status=429,
        code="sms_throttled",
        detail="slow down",
    )
    DeliveryReport.create(
        channel_id=channel.id,
        message_id=message.id,
        status="failed",
        at=now,
        received_at=now,
        code=CAUSES[1],
        effect="moved",
        dedupe="1",
    )


def _files(row: Broadcast) -> Numbers:
    """A file being checked, one that was refused, one with rows that get no message."""
    make.file(row, name="проверяется.csv", state="checking", size=9_000_000, done=4_100_000)
    refused = make.file(
        row, name="не тот.csv", state="refused", code="missing_columns", detail={"cols": ["имя"]}, rows=0
    )
    rejected = {"duplicate": 2, "phone_invalid": 3, "opted_out": 1, "blank_row": 1}
    checked = make.file(
        row, name="проверен.csv", rows=107, accepted=100, rejected=rejected, columns=["Телефон", "Имя"], unused=["Город"],
        sample=[["89001112233", "Анна", "Тула"], ["+7 900 111-22-34", "Пётр", "Омск"]], repairs={"count": 90, "examples": [["89001112233", "+79001112233"]]},
    )  # fmt: skip
    for line, code in ((5, "phone_invalid"), (9, "duplicate"), (12, "opted_out")):
        other = {"line": 3} if code == "duplicate" else None
        RejectedRow.create(
            file_id=checked.id, line=line, code=code, column="Телефон", value="8900", original="8900;Анна", other=other
        )
    make.messages(checked, *["queued"] * 6)
    return {"files": row.id, "checked": checked.id, "refused": refused.id}


def _conversations() -> Numbers:
    """Two chats, their messages, a saved answer, the stop list with its proofs."""
    now = clock.now()
    sms = Channel.get(Channel.provider == "sandbox_sms")
    found: Numbers = {}
    for n, (name, state, text) in enumerate(
        (("Анна Петрова", "open", "А можно перенести на субботу?"), (None, "closed", "СТОП"))
    ):
        phone = f"+7900555000{n}"
        chat = Conversation.create(
            channel_id=sms.id,
            phone=phone,
            name=name,
            state=state,
            unread=1 - n,
            last_in_at=now - n,
            last_at=now - n,
            last_text=text,
            created_at=now,
        )
        Inbound.create(
            channel_id=sms.id,
            provider_id=f"in-{n}",
            phone=phone,
            name=name,
            kind="text",
            text=text,
            at=now,
            received_at=now,
            conversation_id=chat.id,
        )
        found[f"conversation_{state}"] = chat.id
    Direct.create(
        channel_id=sms.id,
        kind="answer",
        phone="+79005550000",
        conversation_id=found["conversation_open"],
        made_by="sender@example.org",
        at=now,
    )
    found["answer"] = QuickAnswer.create(title="Адрес", text="Мы на Садовой, 4, с 9 до 21").id
    for n, source in enumerate(("reply", "provider", "person")):
        phone = f"+7900555001{n}"
        found["optout"] = OptOut.create(phone=phone, reason="СТОП", source=source, channel_id=sms.id, at=now).id
        OptOutEvent.create(
            phone=phone, scope="all", action="add", source=source, reason="СТОП", channel_id=sms.id, actor="", at=now
        )
    return found


def _machines() -> Numbers:
    """Tokens of every kind, webhooks in every state with a log."""
    now = clock.now()
    accounts.create_token("Склад, ночной отчёт", "viewer", actor="test", life=0, areas=["broadcasts", "metrics"])
    facts = {"events": list(webhooks.EVENTS), "secret": b"", "created_by": "test", "created_at": now}
    url = "https://crm.example.org/incoming/molva-with-a-rather-long-address?key=0123456789abcdef"
    states = {
        "webhook_on": {"last_at": now},
        "webhook_failing": {"failing_since": now},
        "webhook_off": {"state": "stopped", "stop_reason": "timeout"},
    }
    found: Numbers = {"token": ApiToken.select().first().id}
    for name, columns in states.items():
        found[name] = Webhook.create(url=url, **facts, **columns).id
    for n, (event, status, cause) in enumerate(
        (("message.status", 200, None), ("message.inbound", 503, "http_503"), ("test", None, "connect_failed"))
    ):
        WebhookDelivery.create(
            webhook_id=found["webhook_on"], event_id=f"evt_{n:024x}", event=event, items=1000 ** (n == 0), at=now, took=87,
            http_status=status, cause=cause,
        )  # fmt: skip
    return found
