"""The security checklist: every line has its tests by name, or the reason why it has none. And the canaries.

Lines S01–S43 and V1–V5 are those of an ASVS-like list for this kind of product; what each one asks stands in words.
"""

from __future__ import annotations

import ast
import json
import logging
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from tests import make
from tests.conftest import Clock
from tests.people import PASSWORD, Browser, signed_in
from tests.webapp.test_matrix import routes
from worker import backup, channels, db, people, reports, second_step, totp
from worker.models import Channel, Message, User
from worker.settings import Settings

ROOT = Path(__file__).parents[2]

# line → (what it asks, its tests as "file::test", or a reason)
LINES: dict[str, tuple[str, list[str] | str]] = {
    "S01": (
        "no default account; a one-time code, good for an hour, dead after use",
        [
            "webapp/test_setup.py::test_every_page_leads_to_setup_while_there_is_no_administrator",
            "webapp/test_setup.py::test_a_wrong_code_is_refused",
            "webapp/test_setup.py::test_after_setup_it_is_gone_and_the_code_is_dead",
            "webapp/test_setup.py::test_of_two_at_once_one_becomes_the_administrator",
        ],
    ),
    "S02": (
        "keys are random, private, outside the database; short ones are refused",
        [
            "worker/test_vault.py::test_a_key_is_generated_once_for_nobody_else_to_read",
            "worker/test_settings.py::test_nonsense_is_refused_by_name",
            "webapp/test_security.py::test_a_word_list_does_not_unsign_the_cookie",
        ],
    ),
    "S03": (
        "Argon2id with OWASP's cost, 12 characters and no well-known ones, rehash",
        [
            "webapp/test_auth.py::test_passwords_are_argon2id_with_the_agreed_cost",
            "webapp/test_auth.py::test_a_password_from_the_first_guesses_is_refused",
            "webapp/test_auth.py::test_a_hash_with_another_cost_is_renewed_at_sign_in",
        ],
    ),
    "S04": (
        "the same answer and time for an unknown person",
        [
            "webapp/test_auth.py::test_every_wrong_gets_the_same_answer",
            "webapp/test_auth.py::test_an_unknown_account_costs_the_time_of_a_known_one",
        ],
    ),
    "S05": (
        "guessing is slowed down, the owner is not locked out",
        [
            "webapp/test_auth.py::test_guessing_is_slowed_down_and_answered_with_a_time",
            "webapp/test_auth.py::test_the_owner_gets_in_soon_whatever_others_try",
        ],
    ),
    "S06": (
        "sessions end on the server at logout, a new password, a new role, deactivation; idle 12 h, 30 days",
        [
            "webapp/test_auth.py::test_logout_ends_the_session_on_the_server",
            "webapp/test_auth.py::test_a_new_password_signs_out_every_other_browser",
            "webapp/test_people.py::test_a_new_role_ends_the_sessions_of_that_person",
            "webapp/test_people.py::test_a_deactivated_person_is_out_until_let_in_again",
            "webapp/test_auth.py::test_sessions_end_after_12_idle_hours",
            "webapp/test_auth.py::test_sessions_end_after_30_days_however_busy",
            "webapp/test_auth.py::test_sign_out_everywhere_else",
        ],
    ),
    "S07": (
        "cookies are HttpOnly, Lax, under HTTPS Secure and __Host-; proxies are believed only when named",
        [
            "webapp/test_auth.py::test_the_cookie_is_closed_to_scripts_and_other_sites",
            "webapp/test_auth.py::test_under_https_the_cookie_is_secure_and_bound_to_the_host",
            "webapp/test_auth.py::test_forwarded_headers_of_a_stranger_are_ignored",
            "webapp/test_serve.py::test_a_proxy_is_believed_only_when_the_settings_say_so",
        ],
    ),
    "S08": (
        "pages are never kept and differ by cookie",
        ["webapp/test_security_headers.py::test_pages_are_never_kept_and_differ_by_cookie_and_by_htmx"],
    ),
    "S09": (
        "CSRF on every change, missing, wrong and of another login",
        [
            "webapp/test_matrix.py::test_no_change_without_the_right_csrf_token",
            "webapp/test_security_headers.py::test_no_change_without_the_right_csrf_token",
            "webapp/test_security_headers.py::test_a_change_from_another_site_is_refused_even_with_the_token",
        ],
    ),
    "S10": ("no change by GET", ["webapp/test_matrix.py::test_looking_changes_nothing"]),
    "S11": (
        "roles, denied by default: route × role",
        [
            "webapp/test_auth.py::test_every_route_declares_who_may_call_it",
            "webapp/test_auth.py::test_a_route_without_a_declaration_is_refused",
            "webapp/test_matrix.py::test_a_role_reaches_what_it_may_and_nothing_else",
            "webapp/test_matrix.py::test_strangers_are_sent_away",
        ],
    ),
    "S12": (
        "every id is checked",
        [
            "webapp/test_matrix.py::test_an_unknown_id_is_not_found_whatever_is_asked",
            "webapp/test_matrix.py::test_what_belongs_to_another_broadcast_is_not_found",
            "webapp/test_matrix.py::test_an_unknown_id_and_one_that_may_not_be_seen_look_the_same",
            "webapp/test_people.py::test_one_browser_is_signed_out_and_only_ones_own",
        ],
    ),
    "S13": (
        "the last administrator stays, nobody raises their own role, forms assign nothing else",
        [
            "webapp/test_people.py::test_two_administrators_cannot_remove_each_other_at_once",
            "webapp/test_people.py::test_nobody_changes_their_own_account",
            "webapp/test_people.py::test_forms_set_nothing_but_their_own_fields",
            "webapp/test_people.py::test_the_role_comes_from_the_invitation_never_from_the_form",
        ],
    ),
    "S14": (
        "the password again for what matters",
        [
            "webapp/test_people.py::test_nothing_that_matters_is_done_from_a_browser_left_open",
            "webapp/test_people.py::test_sending_again_to_more_than_100_is_confirmed",
            "webapp/test_privacy.py::test_all_of_it_asks_for_the_password_again",
        ],
    ),
    "S15": (
        "TOTP, recovery codes hashed, a code works once",
        [
            "worker/test_totp.py::test_the_vectors_of_the_rfc",
            "webapp/test_people.py::test_a_code_works_once",
            "webapp/test_people.py::test_a_recovery_code_works_once_and_is_kept_as_a_hash",
            "webapp/test_people.py::test_guessing_codes_is_slowed_down",
        ],
    ),
    "S16": (
        "secrets are sealed, go in and never come out",
        [
            "webapp/test_security.py::test_a_secret_is_nowhere_but_sealed",
            "webapp/test_channels.py::test_secrets_do_not_come_back",
            "providers/test_contract.py::test_a_vendor_that_repeats_the_request_shows_no_secret",
        ],
    ),
    "S17": (
        "logs hold no text, no secret, no whole number",
        [
            "webapp/test_security.py::test_logs_hold_no_text_no_secret_and_no_whole_number",
            "worker/test_logs.py::test_phone_numbers_are_masked",
            "worker/test_logs.py::test_line_breaks_of_strangers_are_shown_not_obeyed",
        ],
    ),
    "S18": (
        "the audit log: one line for each act, append-only, a year",
        [
            "webapp/test_audit.py::test_sign_ins_good_and_bad",
            "webapp/test_audit.py::test_a_broadcast_from_its_making_to_its_clearing",
            "webapp/test_audit.py::test_a_look_at_a_full_number_is_one_line",
            "webapp/test_audit.py::test_exports_are_one_line_each",
            "worker/test_audit.py::test_the_database_itself_refuses_to_change_a_line",
            "worker/test_audit.py::test_what_is_older_than_a_year_may_go",
        ],
    ),
    "S19": (
        "a strict CSP on every answer; planted scripts stay inert",
        [
            "webapp/test_security_headers.py::test_every_answer_is_guarded",
            "webapp/test_security_headers.py::test_pages_hold_no_inline_script_style_or_handler",
            "e2e/test_payloads.py::test_what_strangers_wrote_stays_text_in_a_real_browser",
        ],
    ),
    "S20": (
        "nosniff, referrer, permissions, HSTS, no version in Server",
        [
            "webapp/test_security_headers.py::test_every_answer_is_guarded",
            "webapp/test_security_headers.py::test_https_is_remembered_where_it_is_spoken",
            "webapp/test_security.py::test_the_server_names_no_version",
        ],
    ),
    "S21": (
        "autoescape everywhere, no way around it",
        [
            "webapp/test_security_headers.py::test_templates_never_switch_escaping_off",
            "e2e/test_payloads.py::test_what_strangers_wrote_stays_text_in_a_real_browser",
        ],
    ),
    "S22": (
        "no data of people in hx-*, style or script addresses",
        ["webapp/test_security.py::test_no_attribute_that_acts_takes_words_of_people"],
    ),
    "S23": (
        "message texts have their own one-pass replacer",
        [
            "worker/test_rendering.py::test_a_value_is_never_expanded_again",
            "worker/test_rendering.py::test_it_takes_linear_time",
            "webapp/test_bad_input.py::test_a_template_language_in_a_cell_is_text",
        ],
    ),
    "S24": (
        "SQL by parameters; filters from fixed lists",
        ["webapp/test_bad_input.py::test_the_address_asks_for_nonsense"],
    ),
    "S25": (
        "uploads: counted while read, random names, judged by content",
        [
            "worker/recipients/test_checking.py::test_over_ten_megabytes_is_refused_before_and_while_reading",
            "worker/recipients/test_checking.py::test_a_file_name_is_only_ever_shown",
            "webapp/test_bad_input.py::test_a_file_name_is_shown_and_nothing_else",
            "webapp/test_bad_input.py::test_what_is_no_table_is_refused",
        ],
    ),
    "S26": ("exports hold no formula", ["webapp/test_bad_input.py::test_no_export_holds_a_formula"]),
    "S27": (
        "callbacks: HMAC over raw bytes, compared in constant time",
        [
            "webapp/test_callbacks.py::test_one_changed_byte_is_a_forgery",
            "providers/test_contract.py::test_a_forged_callback_is_refused",
            "webapp/test_security.py::test_digests_are_compared_in_constant_time",
        ],
    ),
    "S28": (
        "a replayed callback changes nothing",
        ["providers/test_contract.py::test_a_repeated_callback_says_the_same"],
    ),
    "S29": (
        "SSRF: public addresses only, the checked one is connected to, no redirects, no proxy",
        [
            "providers/test_egress.py::test_however_it_is_spelt_a_private_destination_stops_the_channel",
            "providers/test_egress.py::test_the_address_that_was_checked_is_the_one_connected_to",
            "providers/test_contract.py::test_a_redirect_stops_the_channel_and_is_not_followed",
            "providers/test_adapter.py::test_the_environment_names_no_proxy",
        ],
    ),
    "S30": (
        "next only as a local path",
        [
            "webapp/test_auth.py::test_next_refuses",
            "webapp/test_people.py::test_the_confirmation_leads_to_no_foreign_page",
        ],
    ),
    "S31": (
        "host names from a list, links from MOLVA_BASE_URL",
        [
            "webapp/test_security_headers.py::test_unknown_hosts_are_refused",
            "webapp/test_people.py::test_the_link_begins_with_the_public_address",
        ],
    ),
    "S32": ("ids, never paths", ["webapp/test_bad_input.py::test_no_path_climbs_out"]),
    "S33": (
        "limits, body and form sizes",
        [
            "webapp/test_limits.py::test_the_window_slides",
            "webapp/test_limits.py::test_exports_per_person",
            "webapp/test_limits.py::test_uploads",
            "webapp/test_limits.py::test_refused_callbacks_are_limited_genuine_ones_are_not",
            "webapp/test_security_headers.py::test_a_body_that_is_too_large_gets_a_readable_answer",
            "webapp/test_security_headers.py::test_a_form_of_too_many_parts_is_refused",
        ],
    ),
    "S34": (
        "no debug, no traceback; healthz without data",
        [
            "webapp/test_security_headers.py::test_a_fault_is_logged_under_the_number_that_the_page_shows",
            "webapp/test_security.py::test_nothing_of_a_debugger_answers",
        ],
    ),
    "S35": ("no pickle outside of this process", ["webapp/test_security.py::test_the_queue_lies_in_the_data_folder"]),
    "S36": (
        "the container is not root and read-only",
        ["test_deployment.py::test_the_image_is_not_root_and_holds_what_the_package_needs"],
    ),
    "S37": (
        "a backup holds no login session that works after a restore",
        ["webapp/test_security.py::test_a_restored_backup_lets_nobody_in_without_the_password"],
    ),
    "S38": (
        "pinned dependencies, audited",
        "ranges with an upper end in pyproject.toml; what is installed is the operator's, and an audit needs the network",
    ),
    "S39": (
        "TLS to providers is verified",
        [
            "providers/test_adapter.py::test_an_unknown_issuer_is_surely_not_sent",
            "providers/test_adapter.py::test_a_trusted_issuer_is_spoken_to_and_the_name_must_match",
        ],
    ),
    "S40": (
        "a deactivated person is out within a minute, everywhere",
        ["webapp/test_matrix.py::test_a_person_shut_out_is_out_everywhere"],
    ),
    "S41": (
        "API tokens hashed, scoped, expiring",
        [
            "webapp/test_auth.py::test_tokens_expire_and_can_be_revoked",
            "webapp/test_auth.py::test_a_cookie_does_not_open_the_api_and_a_token_does_not_open_pages",
        ],
    ),
    "S42": (
        "the tool cannot be used to flood people",
        [
            "worker/test_approvals.py::test_above_it_the_start_is_refused_until_another_has_approved",
            "webapp/test_people.py::test_sending_again_to_more_than_100_is_confirmed",
            "worker/test_sender.py::test_a_daily_limit_holds_the_rest_and_says_until_when",
        ],
    ),
    "S43": (
        "where to report a flaw",
        "SECURITY.md names the way for the project; who runs an installation is not known to it, so no security.txt",
    ),
    "V1": (
        "a person planted everywhere is erased everywhere",
        [
            "worker/test_privacy.py::test_the_plant_is_everywhere",
            "worker/test_privacy.py::test_an_erased_person_is_nowhere",
        ],
    ),
    "V2": (
        "retention: texts go, totals stay",
        ["worker/test_retention.py::test_texts_go_after_their_days_and_totals_stay"],
    ),
    "V3": (
        "a viewer meets no number",
        [
            "webapp/test_privacy.py::test_a_viewer_meets_no_number_anywhere",
            "webapp/test_privacy.py::test_no_title_holds_a_number",
        ],
    ),
    "V4": ("a look at a full number is one line", ["webapp/test_audit.py::test_a_look_at_a_full_number_is_one_line"]),
    "V5": (
        "nothing is called but the providers",
        ["e2e/test_payloads.py::test_what_strangers_wrote_stays_text_in_a_real_browser"],
    ),
}


def test_every_line_of_the_checklist_is_answered() -> None:
    assert sorted(LINES) == sorted([f"S{n:02d}" for n in range(1, 44)] + [f"V{n}" for n in range(1, 6)])


@pytest.mark.parametrize("line", sorted(LINES))
def test_every_named_test_exists(line: str) -> None:
    asks, answer = LINES[line]
    assert asks
    if isinstance(answer, str):
        assert len(answer) > 20
        return
    for name in answer:
        file, _colons, test = name.partition("::")
        tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
        assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, name


# ---- canaries

SECRET = "canary-K7vXq2-secret"
TEXT = "canary-Zm4-message-text"
NUMBER = "+79995554711"


@pytest.fixture
def planted(database: Settings, users: dict[str, User], clock: Clock) -> Channel:
    """A secret in a channel, a text and a number in a broadcast, a second step with its secret."""
    values = {"url": "https://gateway.example/send", "fields": ["to = {to}", "text = {text}", "key = {token}"]}
    values |= {"token": SECRET, "rules": ["status 2xx -> ok"]}
    channel = channels.create(database, "http", "Gateway", values)
    made = make.broadcast(channel=channel, text=TEXT)
    for message in make.messages(make.file(made), "sent", "failed", row=json.dumps([NUMBER, TEXT])):
        Message.update(phone=NUMBER).where(Message.id == message.id).execute()
    return channel


def crawl(app: Flask, user: User, api: Any) -> str:
    """Everything that a person of this role, and a token of it, can look at."""
    browser, found = signed_in(app, user), []
    for route in routes(app):
        if route.method == "GET":
            answer = (
                app.test_client().get(route.path(), headers=api[user.role])
                if route.of_api
                else browser.get(route.path())
            )
            found.append(f"{answer.headers}\n{answer.data.decode('utf-8', 'replace')}")
    return "\n".join(found)


@pytest.mark.sqlite  # looks into a backup, which a server's own tools make
@pytest.mark.parametrize("role", people.ROLES)
def test_a_secret_is_nowhere_but_sealed(
    app: Flask,
    users: dict[str, User],
    api: Any,
    planted: Channel,
    database: Settings,
    tmp_path: Path,
    role: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    assert SECRET not in crawl(app, users[role], api)
    signed_in(app, users["admin"]).post(f"/channels/{planted.id}/check")
    app.test_client().post(f"/api/v1/channels/{planted.id}/check", headers=api["admin"])
    assert SECRET not in caplog.text
    backup.backup(database, tmp_path / "copy.zip")
    with zipfile.ZipFile(tmp_path / "copy.zip") as archive:
        copied = b"".join(archive.read(name) for name in archive.namelist())
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    stored = b"".join(path.read_bytes() for path in database.data.rglob("*") if path.is_file())
    assert SECRET.encode() not in stored + copied
    assert channels.all_settings(database, planted)["token"] == SECRET


def test_logs_hold_no_text_no_secret_and_no_whole_number(
    app: Flask, users: dict[str, User], api: Any, planted: Channel, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    app.testing = False
    app.add_url_rule("/crash/<path:what>", "crash", _crash)
    crawl(app, users["sender"], api)
    browser = Browser(app)
    browser.post("/login", {"email": "sender@example.org", "password": SECRET})
    app.test_client().get(f"/hooks/nobody/status?to={NUMBER[1:]}&text={TEXT}&token={SECRET}")
    for word in (SECRET, TEXT, PASSWORD, NUMBER, NUMBER[1:]):
        assert word not in caplog.text, word


def _crash(what: str) -> str:
    raise ZeroDivisionError(what)


@pytest.mark.sqlite
def test_a_restored_backup_lets_nobody_in_without_the_password(
    app: Flask, sender: Browser, database: Settings, users: dict[str, User], tmp_path: Path
) -> None:
    secret, sealed = second_step.offer(database, users["admin"])
    from worker import clock

    second_step.switch_on(database, users["admin"], sealed, totp.code(secret, clock.now() // totp.STEP))
    assert sender.get("/settings").status_code == 200
    backup.backup(database, tmp_path / "copy.zip")
    db.close()
    backup.restore(database, tmp_path / "copy.zip")
    db.open_database(database)
    with db.connection():
        assert sender.get("/settings").status_code == 302
        assert User.get_by_id(users["admin"].id).totp is not None


# ---- the rest of the list


@pytest.mark.parametrize("guess", ["", "secret", "changeme", "dev", "molva", "you-will-never-guess", "SECRET_KEY"])
def test_a_word_list_does_not_unsign_the_cookie(app: Flask, stranger: Browser, guess: str) -> None:
    from flask.sessions import SecureCookieSessionInterface

    cookie = re.search(r"molva=([^;]+)", stranger.get("/login").headers["Set-Cookie"])
    assert cookie is not None
    other = Flask("other")
    other.secret_key = guess or None
    signer = SecureCookieSessionInterface().get_signing_serializer(other)
    with pytest.raises(Exception):  # noqa: B017  whatever it is: it does not open
        assert signer is not None
        signer.loads(cookie[1])


def test_the_server_names_no_version() -> None:
    source = (ROOT / "webapp" / "serve.py").read_text(encoding="utf-8")
    assert re.search(r'ident\s*=\s*("Molva"|None|"")', source)


def test_no_attribute_that_acts_takes_words_of_people() -> None:
    """In hx-* stand addresses that url_for made, fixed words and numbers; style and on* do not occur."""
    words = re.compile(r"\.(name|text|email|phone|reason|title|value|actor|subject|agent|label)\b")
    for path in (ROOT / "templates").rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\son[a-z]+\s*=|\sstyle\s*=|href=\"javascript", text), path
        for attribute, value in re.findall(r'\s(hx-[a-z-]+)="([^"]*\{\{[^"]*)"', text):
            for inside in re.findall(r"\{\{(.*?)\}\}", value):
                assert "url_for(" in inside or not words.search(inside), f"{path}: {attribute} takes {inside}"


def test_digests_are_compared_in_constant_time() -> None:
    for folder in ("webapp", "worker"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"(hex)?digest\(\)\s*[!=]=|[!=]=\s*\w*\.hexdigest\(", text), path


@pytest.mark.parametrize(
    "path", ["/console", "/?__debugger__=yes&cmd=resource&f=style.css", "/debug", "/.env", "/.git/HEAD"]
)
def test_nothing_of_a_debugger_answers(app: Flask, stranger: Browser, path: str) -> None:
    answer = stranger.get(path)
    assert answer.status_code in (302, 404)
    assert "Werkzeug" not in answer.text and not app.debug


def test_the_queue_lies_in_the_data_folder(database: Settings) -> None:
    """Huey's tasks are pickled, so the file that holds them must be as private as the database; and it is never
    switched to run tasks inside the page."""
    from worker import tasks

    tasks.configure(database)
    assert tasks.huey.immediate is False
    assert database.queue_path.parent == database.data
    assert database.queue_path.stat().st_mode & 0o077 == 0


def test_exports_write_cells_by_one_hand() -> None:
    """One function makes cells safe, and one writes CSV: a second writer would forget it."""
    writers = [
        path.name
        for folder in ("webapp", "worker")
        for path in (ROOT / folder).rglob("*.py")
        if "csv.writer(" in path.read_text(encoding="utf-8")
    ]
    assert set(writers) <= {
        "reports.py",
        "__init__.py",
        "rows.py",
        "checking.py",
        "optout_files.py",
        "sheets.py",
        "rescue.py",
    }
    assert reports.safe_cell("=1") == "'=1"
