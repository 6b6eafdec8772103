"""Webhooks: addresses of other programs that are told what happens here, and what became of it."""

from __future__ import annotations

from flask import Blueprint, Response, make_response, render_template, request, url_for
from flask_babel import gettext as _

from webapp import htmx, lookup, sentences
from webapp.auth import me, role, step_up
from webapp.forms.webhook import WebhookForm
from worker import webhooks as use
from worker.models import Webhook
from worker.problems import Invalid

webhooks = Blueprint("webhooks", __name__, url_prefix="/webhooks")
LISTED = 50


@webhooks.get("")
@role("admin")
def index() -> Response:
    return _list(WebhookForm())


def _list(form: WebhookForm, status: int = 200) -> Response:
    page = render_template("webhooks/list.html", form=form, items=use.all_of_them(), said=sentences.webhook_failure)
    return make_response(page, status)


@webhooks.post("")
@role("admin")
@step_up
def create() -> Response:
    """Add a webhook and show its secret, for the only time."""
    form = WebhookForm()
    if form.validate():
        try:
            row, secret = use.add(lookup.settings(), {"url": form.url.data, "events": form.events.data}, me().name)
            return _page(row, WebhookForm(formdata=None, obj=row), secret)
        except Invalid as error:
            form.refuse(error.problems)
    return _list(form, 422)


@webhooks.get("/<int:number>")
@role("admin")
def show(number: int) -> Response:
    row = lookup.webhook(number)
    return _page(row, WebhookForm(formdata=None, obj=row))


def _page(row: Webhook, form: WebhookForm, secret: str = "", status: int = 200) -> Response:
    before = request.args.get("before", "")
    tries = use.deliveries(row.id, int(before) if before.isdecimal() and len(before) < 16 else None, LISTED + 1)
    facts = {"row": row, "form": form, "secret": secret, "said": sentences.webhook_failure}
    more = tries[LISTED - 1].id if len(tries) > LISTED else None
    page = render_template("webhooks/show.html", **facts, tries=tries[:LISTED], more=more, before=before)
    return make_response(page, status)


@webhooks.post("/<int:number>")
@role("admin")
@step_up
def change(number: int) -> Response:
    """Change address and events."""
    row = lookup.webhook(number)
    form = WebhookForm()
    if form.validate():
        try:
            use.change(lookup.settings(), row, {"url": form.url.data, "events": form.events.data}, me().name)
            return _back(number, _("Saved"))
        except Invalid as error:
            form.refuse(error.problems)
    return _page(row, form, status=422)


@webhooks.post("/<int:number>/<any(on, stopped):state>")
@role("admin")
def switch(number: int, state: str) -> Response:
    """Switch it on or off."""
    use.change(lookup.settings(), lookup.webhook(number), {"state": state}, me().name)
    return _back(number, _("Saved"))


@webhooks.post("/<int:number>/test")
@role("admin")
def test(number: int) -> Response:
    """Send an event that means nothing, now."""
    found = use.test(lookup.settings(), lookup.webhook(number))
    if found.cause is not None:
        return _back(number, sentences.webhook_failure(found.cause), "error")
    return _back(number, _("The webhook took the test: answer %(status)s", status=found.http_status))


@webhooks.route("/<int:number>/delete", methods=["GET", "POST"])
@role("admin")
@step_up
def delete(number: int) -> Response:
    """Forget it, after asking."""
    row = lookup.webhook(number)
    if request.method == "GET":
        return htmx.question("webhooks/_delete.html", row=row)
    use.remove(row, me().name)
    return htmx.redirect(url_for("webhooks.index"), toast=_("Deleted: %(name)s", name=row.url))


def _back(number: int, toast: str, level: str = "ok") -> Response:
    return htmx.redirect(url_for("webhooks.show", number=number), toast=toast, level=level)
