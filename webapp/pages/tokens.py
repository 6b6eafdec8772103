"""API tokens: keys for other programs. A token is shown once, when it is made."""

from __future__ import annotations

from flask import Blueprint, Response, make_response, render_template, request, url_for
from flask_babel import gettext as _

from webapp import htmx, lookup
from webapp.auth import me, role, step_up
from webapp.forms.token import TokenForm
from worker import clock, people

tokens = Blueprint("tokens", __name__, url_prefix="/tokens")


@tokens.get("")
@role("admin")
def index() -> Response:
    return _page(TokenForm())


def _page(form: TokenForm, made: str = "", status: int = 200) -> Response:
    facts = {"form": form, "items": people.tokens(), "made": made, "now": clock.now()}
    return make_response(render_template("tokens/list.html", **facts), status)


@tokens.post("")
@role("admin")
@step_up
def create() -> Response:
    """Make a token and show it, for the only time."""
    form = TokenForm()
    if not form.validate():
        return _page(form, status=422)
    made = people.create_token(
        form.name.data,
        form.role.data,
        actor=me().name,
        life=int(form.days.data) * clock.DAY,
        areas=form.areas.data,
        user_id=me().user_id,
    )
    return _page(TokenForm(formdata=None), made)


@tokens.route("/<int:number>/revoke", methods=["GET", "POST"])
@role("admin")
@step_up
def revoke(number: int) -> Response:
    """End a token, after asking."""
    row = lookup.token(number)
    if request.method == "GET":
        return htmx.question("tokens/_revoke.html", row=row)
    people.revoke_token_by_id(row.id, actor=me().name)
    return htmx.redirect(url_for("tokens.index"), toast=_("Revoked: %(name)s", name=row.name))
