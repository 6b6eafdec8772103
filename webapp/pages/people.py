"""Who may come in: invitations, roles, deactivation, and the rules of the team. For administrators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, abort, make_response, render_template, request, url_for
from flask_babel import gettext as _

from webapp import auth, htmx, lookup
from webapp.auth import me, role, step_up
from webapp.forms.auth import PERSON_PROBLEMS, InviteForm
from worker import approvals, db, invitations, second_step
from worker import people as use
from worker.models import User

people = Blueprint("people", __name__, url_prefix="/people")
LISTED = 500


@people.get("")
@role("admin")
def index() -> Response:
    return _page(InviteForm(formdata=None))


def _page(form: InviteForm, status: int = 200, problem: str = "", **more: Any) -> Response:
    facts = {
        "form": form,
        "people": list(User.select().order_by(User.active.desc(), User.email).limit(LISTED)),
        "invited": invitations.living(),
        "above": approvals.above(),
        "problem": problem,
        "link": "",
        **more,
    }
    return make_response(render_template("people/list.html", **facts), status)


@people.post("/invite")
@role("admin")
@step_up
def invite() -> Response:
    """Make a link for a new person, shown this once."""
    form = InviteForm()
    if not form.validate():
        return _page(form, 422)
    try:
        token = invitations.invite(form.email.data, form.role.data, me().name)
    except use.PersonRefused as refused:
        form.email.errors = [PERSON_PROBLEMS[refused.code]]
        return _page(form, 422)
    path = url_for("setup.invitation", token=token)
    base = lookup.settings().base_url.rstrip("/") or request.host_url.rstrip("/")
    return _page(InviteForm(formdata=None), link=base + path, invited_email=form.email.data)


@people.post("/invitations/<int:number>/withdraw")
@role("admin")
def withdraw(number: int) -> Response:
    if not invitations.withdraw(min(number, lookup.ID_MAX), me().name):
        abort(404)
    return htmx.redirect(url_for("people.index"), toast=_("The link does not work any more"))


def _person(number: int) -> User:
    found: User | None = User.get_or_none(User.id == min(number, lookup.ID_MAX))
    if found is None:
        abort(404)
    return found


@people.get("/<int:number>")
@role("admin")
def show(number: int) -> Response:
    return _show(number)


def _show(number: int, status: int = 200, problem: str = "") -> Response:
    person = _person(number)
    facts = {"person": person, "sessions": use.sessions(person.id), "own": person.id == auth.my_user().id}
    facts |= {"second_step": second_step.is_on(person), "problem": problem}
    return make_response(render_template("people/show.html", **facts), status)


def _do(number: int, act: Callable[[], Any], toast: str) -> Response:
    """Do it to a person; what is refused is said on their page."""
    _person(number)
    try:
        act()
    except use.PersonRefused as refused:
        return _show(number, 409, str(PERSON_PROBLEMS[refused.code]))
    return htmx.redirect(url_for("people.show", number=number), toast=toast)


@people.post("/<int:number>/role")
@role("admin")
@step_up
def change_role(number: int) -> Response:
    """Give another role; the person has to sign in again."""
    chosen = request.form.get("role", "")
    return _do(number, lambda: use.change_role(number, chosen, actor=me().name), _("Saved"))


@people.post("/<int:number>/off")
@role("admin")
@step_up
def deactivate(number: int) -> Response:
    return _do(number, lambda: use.deactivate(number, actor=me().name), _("The person is shut out"))


@people.post("/<int:number>/on")
@role("admin")
@step_up
def activate(number: int) -> Response:
    return _do(number, lambda: use.activate(number, actor=me().name), _("The person can sign in again"))


@people.post("/<int:number>/sign-out")
@role("admin")
def sign_out(number: int) -> Response:
    """End every login session of a person."""
    person = _person(number)
    use.end_other_sessions(person.id, 0, actor=me().name)
    return htmx.redirect(url_for("people.show", number=number), toast=_("Signed out everywhere"))


@people.post("/<int:number>/second-step/off")
@role("admin")
@step_up
def switch_second_step_off(number: int) -> Response:
    """For somebody who has lost the phone and the recovery codes."""
    second_step.switch_off(_person(number), me().name)
    return htmx.redirect(url_for("people.show", number=number), toast=_("Saved"))


@people.post("/rules")
@role("admin")
@step_up
def rules() -> Response:
    """Above how many recipients a second person has to approve; empty: never."""
    text = "".join(request.form.get("above", "").split())
    if text and not (text.isascii() and text.isdigit() and len(text) < 10):
        return _page(InviteForm(formdata=None), 422, _("This must be a whole number"))
    with db.write():
        approvals.set_above(int(text) if text else None, me().name)
    return htmx.redirect(url_for("people.index"), toast=_("Saved"))
