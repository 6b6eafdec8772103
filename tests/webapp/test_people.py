"""Several people share one installation: who is let in, who decides that, and what a stolen password is worth."""

from __future__ import annotations

import re
import threading
from html import unescape

import pytest
import segno
from flask import Flask

from tests import make
from tests.conftest import Clock
from tests.people import PASSWORD, Browser, person, signed_in
from worker import db, invitations, people, second_step, totp
from worker.models import Audit, Invitation, LoginSession, RecoveryCode, User
from worker.settings import Settings

NEW = "another quiet river"


@pytest.fixture(autouse=True)
def still(clock: Clock) -> None:
    """Time stands before anybody signs in."""


def actions(subject: str = "") -> list[str]:
    return [a.action for a in Audit.select().order_by(Audit.id) if not subject or a.subject == subject]


# ---- invitations


def link(admin: Browser, email: str = "new@example.org", role: str = "sender") -> str:
    text = admin.post("/people/invite", {"email": email, "role": role}).text
    found = re.search(r'data-copy="http://localhost(/invitation/[^"]+)"', text)
    assert found is not None, text
    return unescape(found[1])


def accept(app: Flask, path: str, password: str = NEW) -> tuple[Browser, int]:
    browser = Browser(app)
    answer = browser.post(path, {"password": password, "again": password})
    browser.forget_csrf()
    return browser, answer.status_code


def test_an_invited_person_chooses_a_password_and_is_in(app: Flask, admin: Browser) -> None:
    path = link(admin, " New@Example.org ", "viewer")
    browser, status = accept(app, path)
    assert status == 303
    user = User.get(User.email == "new@example.org")
    assert (user.role, user.active) == ("viewer", True)
    assert browser.get("/settings").status_code == 200
    assert actions("new@example.org")[-2:] == ["user.invite", "user.join"]


def test_a_link_works_once_and_is_kept_as_a_hash(app: Flask, admin: Browser) -> None:
    path = link(admin)
    token = path.rsplit("/", 1)[1]
    assert token not in str(db.rows("SELECT token_hash, email FROM invitation"))
    assert accept(app, path)[1] == 303
    assert accept(app, path)[1] == 404
    assert Browser(app).get(path).status_code == 404


def test_the_link_is_shown_once(admin: Browser) -> None:
    token = link(admin).rsplit("/", 1)[1]
    assert token not in admin.page("/people")
    assert "new@example.org" in admin.page("/people")


def test_a_link_ends_after_72_hours(app: Flask, admin: Browser, clock: Clock) -> None:
    path = link(admin)
    clock.tick(hours=71, minutes=59)
    assert Browser(app).get(path).status_code == 200
    clock.tick(minutes=2)
    assert accept(app, path)[1] == 404
    assert User.get_or_none(User.email == "new@example.org") is None


def test_a_second_invitation_makes_the_first_void(app: Flask, admin: Browser) -> None:
    first, second = link(admin), link(admin)
    assert accept(app, first)[1] == 404
    assert accept(app, second)[1] == 303


def test_a_withdrawn_link_does_not_work(app: Flask, admin: Browser) -> None:
    path = link(admin)
    assert admin.post(f"/people/invitations/{Invitation.get().id}/withdraw").status_code == 303
    assert accept(app, path)[1] == 404


def test_of_two_who_use_one_link_at_once_one_wins(app: Flask, admin: Browser) -> None:
    path = link(admin)
    statuses: list[int] = []

    def press() -> None:
        statuses.append(accept(app, path)[1])
        db.close()  # a thread of the server lives on and keeps its connection

    both = [threading.Thread(target=press) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert sorted(statuses) == [303, 404]
    assert User.select().where(User.email == "new@example.org").count() == 1


def test_a_weak_password_is_refused_and_the_link_stays(app: Flask, admin: Browser) -> None:
    path = link(admin)
    browser = Browser(app)
    assert browser.post(path, {"password": "password1234", "again": "password1234"}).status_code == 422
    assert browser.post(path, {"password": NEW, "again": NEW + "x"}).status_code == 422
    assert accept(app, path)[1] == 303


@pytest.mark.parametrize(
    ("email", "role", "status"),
    [("sender@example.org", "viewer", 422), ("no address", "viewer", 422), ("a@b.example", "owner", 422)],
)
def test_an_invitation_that_cannot_be_is_refused(admin: Browser, email: str, role: str, status: int) -> None:
    assert admin.post("/people/invite", {"email": email, "role": role}).status_code == status
    assert Invitation.select().count() == 0


def test_the_role_comes_from_the_invitation_never_from_the_form(app: Flask, admin: Browser) -> None:
    path = link(admin, role="viewer")
    Browser(app).post(path, {"password": NEW, "again": NEW, "role": "admin", "email": "boss@example.org"})
    assert {u.email: u.role for u in User.select()}["new@example.org"] == "viewer"
    assert User.get_or_none(User.email == "boss@example.org") is None


def test_the_link_begins_with_the_public_address(database: Settings, users: dict[str, User]) -> None:
    from dataclasses import replace

    from webapp import create_app

    app = create_app(replace(database, base_url="https://molva.example.org"))
    text = signed_in(app, users["admin"]).post("/people/invite", {"email": "n@example.org", "role": "viewer"}).text
    assert 'data-copy="https://molva.example.org/invitation/' in text


# ---- roles


def test_a_new_role_ends_the_sessions_of_that_person(admin: Browser, sender: Browser, users: dict[str, User]) -> None:
    assert admin.post(f"/people/{users['sender'].id}/role", {"role": "viewer"}).status_code == 303
    assert User.get_by_id(users["sender"].id).role == "viewer"
    assert sender.get("/settings").status_code == 302
    assert actions("sender@example.org") == ["user.role"]


def test_a_deactivated_person_is_out_until_let_in_again(app: Flask, admin: Browser, sender: Browser) -> None:
    number = User.get(User.email == "sender@example.org").id
    assert admin.post(f"/people/{number}/off").status_code == 303
    assert sender.get("/settings").status_code == 302
    assert Browser(app).post("/login", {"email": "sender@example.org", "password": PASSWORD}).status_code == 403
    assert admin.post(f"/people/{number}/on").status_code == 303
    assert Browser(app).post("/login", {"email": "sender@example.org", "password": PASSWORD}).status_code == 303


@pytest.mark.parametrize(("path", "data"), [("role", {"role": "viewer"}), ("off", {})])
def test_nobody_changes_their_own_account(
    admin: Browser, users: dict[str, User], path: str, data: dict[str, str]
) -> None:
    person("admin", "second@example.org")
    answer = admin.post(f"/people/{users['admin'].id}/{path}", data)
    assert answer.status_code == 409
    assert "Это должен сделать другой администратор" in answer.text
    assert (User.get_by_id(users["admin"].id).role, User.get_by_id(users["admin"].id).active) == ("admin", True)


def test_two_administrators_cannot_remove_each_other_at_once(users: dict[str, User]) -> None:
    one, other = users["admin"], person("admin", "second@example.org")
    refused: list[str] = []
    ready = threading.Barrier(2)

    def demote(target: User, actor: User) -> None:
        with db.connection():
            ready.wait()
            try:
                people.change_role(target.id, "viewer", actor=actor.email)
            except people.PersonRefused as error:
                refused.append(error.code)

    both = [threading.Thread(target=demote, args=pair) for pair in ((one, other), (other, one))]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert refused == ["last_admin"]
    assert User.select().where(User.role == "admin").count() == 1


def test_a_deactivated_administrator_does_not_count(users: dict[str, User]) -> None:
    other = person("admin", "second@example.org")
    people.deactivate(other.id, actor=users["admin"].email)
    with pytest.raises(people.PersonRefused, match="last_admin"):
        people.deactivate(users["admin"].id, actor="command line")


@pytest.mark.parametrize("path", ["role", "off", "on", "sign-out", "second-step/off"])
def test_a_person_who_does_not_exist_is_not_found(admin: Browser, path: str) -> None:
    assert admin.post(f"/people/{10**20}/{path}", {"role": "viewer"}).status_code == 404


def test_forms_set_nothing_but_their_own_fields(sender: Browser, users: dict[str, User]) -> None:
    sender.post("/language", {"language": "en", "role": "admin", "active": "1", "email": "x@example.org"})
    sender.post(
        "/settings/password", {"current": PASSWORD, "password": NEW, "again": NEW, "role": "admin", "user": "1"}
    )
    found = User.get_by_id(users["sender"].id)
    assert (found.role, found.email, found.language) == ("sender", "sender@example.org", "en")


# ---- login sessions


def test_one_browser_is_signed_out_and_only_ones_own(app: Flask, users: dict[str, User], viewer: Browser) -> None:
    here, there = signed_in(app, users["sender"]), signed_in(app, users["sender"])
    number = LoginSession.select().where(LoginSession.user == users["sender"].id).order_by(LoginSession.id.desc()).get()
    assert viewer.post(f"/settings/sessions/{number.id}/end").status_code == 404
    assert there.get("/settings").status_code == 200
    assert here.post(f"/settings/sessions/{number.id}/end").status_code == 303
    assert there.get("/settings").status_code == 302
    assert here.get("/settings").status_code == 200


def test_an_administrator_signs_a_person_out_everywhere(
    admin: Browser, sender: Browser, users: dict[str, User]
) -> None:
    assert admin.post(f"/people/{users['sender'].id}/sign-out").status_code == 303
    assert sender.get("/settings").status_code == 302


# ---- the second step


@pytest.fixture
def secret(sender: Browser, users: dict[str, User], database: Settings, clock: Clock) -> str:
    """The sender's second step is on; its secret."""
    page = sender.page("/settings/second-step")
    secret = re.search(r"secret=([A-Z2-7]{32})", page)
    sealed = re.search(r'name="sealed" value="([^"]+)"', page)
    assert secret and sealed
    answer = sender.post(
        "/settings/second-step", {"sealed": sealed[1], "code": totp.code(secret[1], clock.now() // totp.STEP)}
    )
    assert answer.status_code == 200
    assert len(re.findall(r"<code>[2-9a-z]{4}-[2-9a-z]{4}-[2-9a-z]{4}</code>", answer.text)) == 10
    clock.tick(seconds=30)
    return secret[1]


def test_the_code_to_scan_is_the_link_beside_it(sender: Browser) -> None:
    page = sender.page("/settings/second-step")
    link = re.search(r'href="(otpauth://[^"]+)"', page)
    drawn = re.search(r'viewBox="-4 -4 (\d+) \1" role="img"[^>]*><path d="([^"]+)"', page)
    assert link and drawn
    dark = {(int(x), int(y)) for x, y in re.findall(r"M(\d+) (\d+)h1v1h-1z", drawn[2])}
    expected = segno.make(unescape(link[1]), error="m", micro=False)
    assert int(drawn[1]) == expected.symbol_size(border=4)[0]
    assert dark == {(x, y) for y, row in enumerate(expected.matrix) for x, module in enumerate(row) if module}


def now_code(secret: str, clock: Clock) -> str:
    return totp.code(secret, clock.now() // totp.STEP)


def half_way(app: Flask) -> Browser:
    browser = Browser(app)
    answer = browser.post("/login", {"email": "sender@example.org", "password": PASSWORD})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/login/code")
    return browser


def test_the_password_alone_opens_nothing(app: Flask, secret: str) -> None:
    browser = half_way(app)
    assert browser.get("/settings").status_code == 302
    assert browser.get("/settings").headers["Location"].startswith("/login")
    assert browser.get("/login/code").status_code == 200


def test_password_and_code_open(app: Flask, secret: str, clock: Clock) -> None:
    browser = half_way(app)
    assert browser.post("/login/code", {"code": now_code(secret, clock)}).status_code == 303
    assert browser.get("/settings").status_code == 200


def test_a_code_works_once(app: Flask, secret: str, clock: Clock) -> None:
    code = now_code(secret, clock)
    assert half_way(app).post("/login/code", {"code": code}).status_code == 303
    again = half_way(app)
    assert again.post("/login/code", {"code": code}).status_code == 403
    assert again.get("/settings").status_code == 302


def test_a_code_used_by_two_at_once_works_once(
    database: Settings, users: dict[str, User], secret: str, clock: Clock
) -> None:
    code, user, found = now_code(secret, clock), User.get_by_id(users["sender"].id), []

    def use() -> None:
        with db.connection():
            found.append(second_step.check(database, user, code))

    both = [threading.Thread(target=use) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert sorted(found) == [False, True]


def test_a_recovery_code_works_once_and_is_kept_as_a_hash(app: Flask, sender: Browser, secret: str) -> None:
    text = sender.post("/settings/second-step/codes").text
    codes = re.findall(r"<code>([2-9a-z-]{14})</code>", text)
    stored = " ".join(row.code_hash for row in RecoveryCode.select())
    assert len(codes) == 10 and not any(code.replace("-", "") in stored for code in codes)
    assert half_way(app).post("/login/code", {"code": codes[0].upper()}).status_code == 303
    assert half_way(app).post("/login/code", {"code": codes[0]}).status_code == 403
    assert half_way(app).post("/login/code", {"code": codes[1].replace("-", " ")}).status_code == 303
    assert RecoveryCode.select().count() == 8


def test_new_recovery_codes_make_the_old_ones_void(app: Flask, sender: Browser, secret: str) -> None:
    first = re.findall(r"<code>([2-9a-z-]{14})</code>", sender.post("/settings/second-step/codes").text)
    sender.post("/settings/second-step/codes")
    assert half_way(app).post("/login/code", {"code": first[0]}).status_code == 403


def test_guessing_codes_is_slowed_down(app: Flask, secret: str, clock: Clock) -> None:
    browser = half_way(app)
    statuses = [browser.post("/login/code", {"code": f"{n:06d}"}).status_code for n in range(12)]
    assert statuses[:5] == [403] * 5 and 429 in statuses
    answer = browser.post("/login/code", {"code": now_code(secret, clock)})
    assert answer.status_code == 429 and int(answer.headers["Retry-After"]) > 0
    assert "second_step.failed" in actions()


def test_the_way_between_the_steps_is_short_and_void_with_the_password(
    app: Flask, secret: str, clock: Clock, users: dict[str, User]
) -> None:
    slow, changed = half_way(app), half_way(app)
    people.set_password(User.get_by_id(users["sender"].id), NEW, actor="command line")
    assert changed.post("/login/code", {"code": now_code(secret, clock)}).headers["Location"] == "/login"
    clock.tick(minutes=11)
    assert slow.post("/login/code", {"code": now_code(secret, clock)}).headers["Location"] == "/login"


def test_the_secret_is_sealed_in_the_database(secret: str, users: dict[str, User]) -> None:
    assert secret.encode() not in bytes(User.get_by_id(users["sender"].id).totp)


def test_a_wrong_first_code_switches_nothing_on(sender: Browser, users: dict[str, User]) -> None:
    sealed = re.search(r'name="sealed" value="([^"]+)"', sender.page("/settings/second-step"))
    assert sealed
    for given in (sealed[1], "nonsense", "ключ"):
        assert sender.post("/settings/second-step", {"sealed": given, "code": "000000"}).status_code == 422
    assert User.get_by_id(users["sender"].id).totp is None


def test_the_offer_of_another_person_does_not_fit(
    sender: Browser, viewer: Browser, users: dict[str, User], clock: Clock
) -> None:
    page = viewer.page("/settings/second-step")
    secret, sealed = re.search(r"secret=([A-Z2-7]{32})", page), re.search(r'name="sealed" value="([^"]+)"', page)
    assert secret and sealed
    answer = sender.post("/settings/second-step", {"sealed": sealed[1], "code": now_code(secret[1], clock)})
    assert answer.status_code == 422
    assert User.get_by_id(users["sender"].id).totp is None


def test_it_can_be_switched_off_by_oneself_and_by_an_administrator(
    app: Flask, sender: Browser, admin: Browser, secret: str, users: dict[str, User]
) -> None:
    assert admin.post(f"/people/{users['sender'].id}/second-step/off").status_code == 303
    assert User.get_by_id(users["sender"].id).totp is None
    assert RecoveryCode.select().count() == 0
    answer = Browser(app).post("/login", {"email": "sender@example.org", "password": PASSWORD})
    assert answer.headers["Location"] == "/"


# ---- confirming what matters


def test_what_matters_asks_for_the_password_again(sender: Browser, clock: Clock) -> None:
    clock.tick(minutes=9)
    assert sender.get("/settings/second-step").status_code == 200
    clock.tick(minutes=2)
    answer = sender.get("/settings/second-step")
    assert answer.status_code == 403
    assert 'action="/confirm"' in answer.text and 'value="/settings/second-step"' in answer.text
    confirmed = sender.post("/confirm", {"secret": PASSWORD, "next": "/settings/second-step"})
    assert (confirmed.status_code, confirmed.headers["Location"]) == (303, "/settings/second-step")
    assert sender.get("/settings/second-step").status_code == 200


def test_a_wrong_password_confirms_nothing_and_is_slowed_down(sender: Browser, clock: Clock) -> None:
    clock.tick(minutes=11)
    statuses = [sender.post("/confirm", {"secret": f"wrong wrong {n}"}).status_code for n in range(8)]
    assert statuses[0] == 403 and statuses[-1] == 429
    assert sender.get("/settings/second-step").status_code == 403
    assert actions().count("confirm.failed") == statuses.count(403)


def test_a_code_of_the_phone_confirms_as_well(sender: Browser, secret: str, clock: Clock) -> None:
    clock.tick(minutes=11)
    assert sender.post("/confirm", {"secret": now_code(secret, clock)}).status_code == 303
    assert sender.post("/settings/second-step/codes").status_code == 200


def test_confirming_counts_for_this_browser_alone(app: Flask, users: dict[str, User], clock: Clock) -> None:
    here, there = signed_in(app, users["sender"]), signed_in(app, users["sender"])
    clock.tick(minutes=11)
    here.post("/confirm", {"secret": PASSWORD})
    assert here.get("/settings/second-step").status_code == 200
    assert there.get("/settings/second-step").status_code == 403


def test_htmx_is_led_to_the_confirmation_as_a_whole_window(
    admin: Browser, users: dict[str, User], clock: Clock
) -> None:
    clock.tick(minutes=11)
    answer = admin.post(
        f"/people/{users['sender'].id}/off", htmx=True, headers={"HX-Current-URL": "http://localhost/people?x=1"}
    )
    assert answer.status_code == 403
    assert answer.headers["HX-Redirect"] == "/confirm?next=/people?x%3D1"
    assert User.get_by_id(users["sender"].id).active


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil.example"])
def test_the_confirmation_leads_to_no_foreign_page(sender: Browser, target: str) -> None:
    assert sender.post("/confirm", {"secret": PASSWORD, "next": target}).headers["Location"] == "/"


# What S14 names, and what else an intruder at an open browser would reach for.
GUARDED = {
    "/channels/new": "GET POST",
    "/channels/1/edit": "GET POST",
    "/channels/1/delete": "POST",
    "/broadcasts/1/report.csv": "GET",
    "/broadcasts/1/files/1/errors.csv": "GET",
    "/people/invite": "POST",
    "/people/1/role": "POST",
    "/people/1/off": "POST",
    "/people/rules": "POST",
    "/people/1/second-step/off": "POST",
    "/settings/second-step": "GET POST",
    "/settings/second-step/off": "POST",
    "/audit/audit.csv": "GET",
    "/optouts/export.csv": "GET",
}


@pytest.mark.parametrize(("path", "method"), [(p, m) for p, methods in GUARDED.items() for m in methods.split()])
def test_nothing_that_matters_is_done_from_a_browser_left_open(
    admin: Browser, clock: Clock, path: str, method: str
) -> None:
    make.file(make.broadcast())
    clock.tick(minutes=11)
    answer = admin.get(path) if method == "GET" else admin.post(path, {"role": "viewer", "email": "x@example.org"})
    assert answer.status_code == 403
    assert 'action="/confirm"' in answer.text


def test_sending_again_to_more_than_100_is_confirmed(sender: Browser, clock: Clock) -> None:
    few, many = (make.broadcast(state="finished") for _ in range(2))
    make.messages(make.file(few, accepted=100), *["sent"] * 3)
    make.messages(make.file(many, accepted=101), *["sent"] * 3)
    clock.tick(minutes=11)
    assert sender.post(f"/broadcasts/{few.id}/restart", {"who": "everyone"}).status_code == 303
    assert sender.post(f"/broadcasts/{many.id}/restart", {"who": "everyone"}).status_code == 403
    sender.post("/confirm", {"secret": PASSWORD})
    assert sender.post(f"/broadcasts/{many.id}/restart", {"who": "everyone"}).status_code == 303


def test_tokens_are_asked_for_nothing(app: Flask, api: dict[str, dict[str, str]], clock: Clock) -> None:
    clock.tick(hours=1)
    made = make.broadcast()
    assert app.test_client().get(f"/api/v1/broadcasts/{made.id}/report.csv", headers=api["sender"]).status_code == 200


def test_invitations_are_for_administrators(sender: Browser, viewer: Browser) -> None:
    for browser in (sender, viewer):
        assert browser.get("/people").status_code == 403
        assert browser.post("/people/invite", {"email": "x@example.org", "role": "admin"}).status_code == 403
    assert invitations.living() == []
