"""F28, F44, F45, F46: what people do while messages are on their way."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests import make
from tests.faults.world import EVERYBODY, World, phone
from tests.product import wait
from worker import broadcasts, db, tasks
from worker.models import Audit, Broadcast, Conversation, Message, OptOut

pytestmark = pytest.mark.faults


@pytest.mark.long
def test_f28_every_message_carries_one_version_of_the_text(world: World) -> None:
    broadcast = world.broadcast(200)
    world.left(broadcast, 120)
    world.press(broadcast, "stop")
    world.in_flight_stored(broadcast)
    url, other = f"/broadcasts/{broadcast.id}", {"variables": {"body.1": {"value": EVERYBODY}}}
    refused = world.ask("PATCH", url, json=other)
    assert refused.status_code == 422
    assert refused.json()["error"]["fields"]["variables"] == "This can be changed only in a draft"
    sent = world.judge(broadcast)["sent"]
    versions = Counter(facts["text"] for facts in world.accepted())
    assert len(versions) == sent  # each has the name of its own row

    world.press(broadcast, "clear")
    assert world.ask("PATCH", url, json=other).status_code == 200
    world.upload(broadcast, 50, 1_000)
    started = broadcasts.start(world.settings, Broadcast.get_by_id(broadcast.id), "test")
    tasks.wake(started.id)
    world.state(broadcast, "finished")
    versions = Counter(facts["text"] for facts in world.accepted())
    assert versions.pop(EVERYBODY) == 50 and len(versions) == sent
    assert world.judge(broadcast)["sent"] == sent + 50


def test_f44_an_answer_leaves_once_however_often_it_is_sent(world: World) -> None:
    world.channel()
    world.reply(phone(1), "When?")
    wait(lambda: Conversation.select().exists(), 10)
    url = f"/conversations/{Conversation.get().id}/messages"

    def press(_time: int = 0) -> int:
        given = {"headers": {"Idempotency-Key": "one form"}, "json": {"text": "Tomorrow"}}
        return world.ask("POST", url, **given).status_code

    assert press() == 201
    with ThreadPoolExecutor(4) as fingers:
        assert set(fingers.map(press, range(8))) == {201}
    world.product.kill()
    world.product.start()
    assert press() == 201
    wait(lambda: Message.get().status in ("sent", "uncertain"), 60)
    assert [(facts["phone"], facts["text"]) for facts in world.accepted()] == [(phone(1), "Tomorrow")]
    assert Message.select().count() == 1


def test_f45_a_stop_word_holds_for_messages_that_wait(world: World) -> None:
    world.control(delay=[0.8, 0.8])
    broadcast = world.broadcast(60, 3_000)
    wait(lambda: world.numbers(broadcast)["sending"] >= 4, 30)
    (on_its_way,) = db.rows("SELECT phone FROM message WHERE status = 'sending' ORDER BY id LIMIT 1")[0]
    world.reply(phone(55), "СТОП")
    world.reply(on_its_way, " Stop. ")
    wait(lambda: OptOut.select().count() == 2, 10)
    world.control(delay=[0.01, 0.02])
    world.state(broadcast, "finished", 60)
    numbers = world.judge(broadcast)
    assert (numbers["skipped"], numbers["sent"]) == (1, 59)
    assert Message.get(Message.status == "skipped").phone == phone(55)
    # What had left could not be called back; from now on nothing goes there either.
    taken = len(world.accepted())
    assert world.ask("POST", f"/broadcasts/{broadcast.id}/restart", json={"who": "everyone"}).status_code == 200
    world.state(broadcast, "finished", 60)
    assert world.numbers(broadcast)["skipped"] == 3  # one in the first run, two in the second
    again = {facts["phone"] for facts in world.accepted()[taken:]}
    assert len(again) == 58 and not again & {phone(55), on_its_way}


@pytest.mark.long
def test_f46_two_people_send_again_at_once_and_one_message_leaves(world: World) -> None:
    lost = [phone(n) for n in range(10, 50, 10)]
    world.control(rules=[{"fault": "accept_500", "numbers": lost}])
    broadcast = world.broadcast(60)
    world.state(broadcast, "finished")
    assert world.judge(broadcast)["uncertain"] == 4
    world.control(rules=[])
    keys = [make.token("sender", name) for name in ("ann", "bob")]
    for row in list(Message.select().where(Message.status == "uncertain")):
        with ThreadPoolExecutor(2) as both:
            answers = list(
                both.map(
                    lambda key, row=row: world.ask(
                        "POST", f"/messages/{row.id}/resolve", key=key, json={"as": "resend"}
                    ),
                    keys,
                )
            )  # type: ignore[misc]
        assert sorted(answer.status_code for answer in answers) == [200, 409]
        winner = "ann" if answers[0].status_code == 200 else "bob"
        named = Audit.select().where(Audit.action == "message.resend", Audit.subject == str(row.id))
        assert [audit.actor for audit in named] == [f"token {winner}"]
    world.state(broadcast, "finished")
    times = Counter(facts["phone"] for facts in world.accepted())
    assert {one: n for one, n in times.items() if n != 1} == dict.fromkeys(lost, 2)  # the second one a person's choice
    assert world.numbers(broadcast)["sent"] == 60
