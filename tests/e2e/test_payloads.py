"""What strangers wrote (names, cells, file names, replies, answers of vendors) stays text in a real browser.

The pages are opened for every role's menu; nothing runs, nothing is fetched from elsewhere, and the policy has
nothing to report.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from tests.e2e.conftest import Window, sign_up
from tests.product import Product
from webapp import create_app
from worker import clock, db
from worker.models import (
    Audit,
    Broadcast,
    Channel,
    Conversation,
    Direct,
    Inbound,
    Message,
    OptOut,
    OptOutEvent,
    QuickAnswer,
    RecipientFile,
    RejectedRow,
    Run,
    User,
)

PAYLOADS = (
    "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
    '"><svg onload="window.hacked = 1"><a href="javascript:window.hacked = 1" hx-get="/logout" hx-trigger="load">x</a>'
    "<div data-hx-post='/logout' data-hx-trigger='load' style='position:fixed'></div>"
    "<style>body{display:none}</style><meta http-equiv=refresh content='0;url=https://evil.example'>"
    "<iframe src=https://evil.example></iframe><base href=https://evil.example>{{7*7}}\u202e"
)
PHONE = "+79010000001"


def plant(product: Product) -> None:
    """One of everything that a page may show, with the payloads wherever words of others stand."""
    db.open_database(product.settings)
    now = clock.now()
    with db.connection(), db.write():
        channel = Channel.get(Channel.provider == "sandbox_sms")
        made = Broadcast.create(
            name=PAYLOADS, channel=channel, text=PAYLOADS, region="RU", rate_per_minute=60, timezone="Europe/Moscow",
            created_at=now, updated_at=now, state="stopped", stop_reason="person", stop_detail={"by": PAYLOADS},
            changed_by=PAYLOADS,
        )  # fmt: skip
        Run.create(broadcast=made, number=1, started_at=now)
        file = RecipientFile.create(
            broadcast=made, role="main", name=PAYLOADS, size=9, sha256="0" * 64, state="ready", columns=["phone", PAYLOADS],
            unused=[PAYLOADS], sample=[[PHONE, PAYLOADS]], encoding="utf-8", delimiter=";", phone_column="phone",
            repairs={"count": 1, "examples": [[PAYLOADS, PHONE]]}, rejected={"phone_invalid": 1}, rows=3, accepted=2,
            created_at=now,
        )  # fmt: skip
        for line, status in enumerate(("failed", "uncertain"), 2):
            Message.create(
                broadcast_id=made.id, run=1, file_id=file.id, line=line, phone=PHONE, status=status, cause="unknown",
                cause_text=PAYLOADS, row=json.dumps([PHONE, PAYLOADS]), provider_id=PAYLOADS, token=f"{line}.x",
            )  # fmt: skip
            db.execute("INSERT INTO counter VALUES (?, 1, ?, ?, 1)", [made.id, file.id, status])
        RejectedRow.create(file_id=file.id, line=4, code="phone_invalid", value=PAYLOADS, original=PAYLOADS)
        conversation = Conversation.create(
            channel_id=channel.id, phone=PHONE, name=PAYLOADS, last_text=PAYLOADS, last_in_at=now, last_at=now,
            created_at=now, unread=1, broadcast_id=made.id,
        )  # fmt: skip
        Inbound.create(
            channel_id=channel.id, provider_id="in", phone=PHONE, name=PAYLOADS, kind="text", text=PAYLOADS, at=now,
            received_at=now, conversation_id=conversation.id, broadcast_id=made.id,
        )  # fmt: skip
        OptOut.create(phone=PHONE, source="reply", reason=PAYLOADS, at=now)
        OptOutEvent.create(
            phone=PHONE, scope="all", action="add", source="reply", reason=PAYLOADS, actor=PAYLOADS, at=now
        )
        Direct.create(
            channel_id=channel.id, message_id=1, kind="test", phone=PHONE, about_id=made.id, made_by=PAYLOADS, at=now
        )
        QuickAnswer.create(title=PAYLOADS, text=PAYLOADS)
        User.create(email=PAYLOADS, password_hash="x", role="viewer", created_at=now)
        Audit.create(at=now, actor=PAYLOADS, action="broadcast.start", subject=PAYLOADS, detail={"x": PAYLOADS}, address=PAYLOADS)  # fmt: skip
    db.close()


def pages(product: Product) -> list[str]:
    """Every page that an address names, with the id 1 where it wants one."""
    app = create_app(product.settings)
    found = []
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<any\(\W*(\w+)[^>]*>", r"\1", rule.rule)
        path = re.sub(r"<int:[^>]+>", "1", path)
        if (
            "GET" not in (rule.methods or ())
            or "<" in path
            or path.startswith(("/api/", "/static", "/healthz", "/metrics"))
        ):
            continue
        if not path.endswith((".csv", ".xlsx", ".json", ".ico", "/setup", "/login")):
            found.append(path)
    db.close()
    return sorted(found)


def test_what_strangers_wrote_stays_text_in_a_real_browser(window: Callable[..., Window], product: Product) -> None:
    one = window("payloads")
    page = one.page
    called: set[str] = set()
    page.on("request", lambda request: called.add(request.url.split("/")[2]))
    violations: list[Any] = []
    page.expose_function("violated", lambda told: violations.append(told))
    page.add_init_script(
        "addEventListener('securitypolicyviolation', (e) => violated(e.violatedDirective + ' ' + e.blockedURI))"
    )
    sign_up(one, product.code)
    plant(product)
    seen = pages(product)
    assert len(seen) > 30
    for path in seen:
        answer = page.goto(one.url + path)
        assert answer.status < 500, path
        page.wait_for_timeout(120)  # htmx looks for what to load
        assert page.evaluate("window.hacked") is None, path
        assert (
            page.evaluate(
                "document.querySelectorAll('main iframe, main style, main script, main meta, main base').length"
            )
            == 0
        )
        assert page.url.startswith(one.url), path
    page.goto(one.url + "/settings")
    assert "/settings" in page.url  # nobody was signed out on the way
    assert violations == []
    assert called == {one.url.split("/")[2]}
    one.complaints[:] = [text for text in one.complaints if "status of 40" not in text]  # pages that answer 404
