"""Channels: the sending accounts, whether they work, and their templates."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, render_template, url_for
from flask_babel import gettext as _
from flask_babel import ngettext

from webapp import htmx, lookup, sentences
from webapp.auth import role
from webapp.sandbox import MAGIC
from worker import channels as use
from worker import rendering
from worker.models import Channel, MessageTemplate
from worker.providers import PROVIDERS
from worker.providers.base import SendError

channels = Blueprint("channels", __name__, url_prefix="/channels")
LISTED = 500
TEMPLATES = 1_000


@channels.get("")
@role("sender")
def index() -> str:
    found = list(Channel.select().order_by(Channel.kind, Channel.name, Channel.id).limit(LISTED))
    stops = {c.id: sentences.cause(c.stop_reason, (c.stop_detail or {}).get("text")) for c in found}
    return render_template("channels/list.html", items=found, stops=stops, providers=PROVIDERS)


def _facts(channel: Channel) -> dict[str, Any]:
    provider = PROVIDERS[channel.provider]
    found = list(
        MessageTemplate.select()
        .where(MessageTemplate.channel == channel.id)
        .order_by(MessageTemplate.name, MessageTemplate.language)
        .limit(TEMPLATES)
    )
    return {
        "channel": channel,
        "provider": provider,
        "stop": sentences.cause(channel.stop_reason, (channel.stop_detail or {}).get("text")),
        "addresses": use.addresses(lookup.settings(), channel),
        "templates": [
            (t, rendering.slots(t.components, t.parameter_format), rendering.unsupported(t.components)) for t in found
        ],
        "special": [(s, sentences.special(s.key, channel.kind)) for s in MAGIC] if _sandbox(channel) else [],
    }


def _sandbox(channel: Channel) -> bool:
    return channel.provider in use.SANDBOX


@channels.get("/<int:number>")
@role("sender")
def show(number: int) -> str:
    return render_template("channels/show.html", **_facts(lookup.channel(number)))


def _back(number: int, toast: str, level: str = "ok") -> Response:
    return htmx.redirect(url_for("channels.show", number=number), toast=toast, level=level)


@channels.post("/<int:number>/templates")
@role("sender")
def refresh(number: int) -> Response:
    """Fetch the templates of the account."""
    channel = lookup.channel(number)
    if PROVIDERS[channel.provider].kind != "waba":
        return _back(number, _("This channel has no templates"), "info")
    try:
        found = use.sync_templates(lookup.settings(), channel.id)
    except SendError as error:
        return _back(number, sentences.failed_call(error.cause, error.detail), "error")
    return _back(number, ngettext("%(num)s template found", "%(num)s templates found", found))


@channels.post("/<int:number>/check")
@role("sender")
def check(number: int) -> Response:
    """A harmless call to the provider: does the connection work?"""
    channel = lookup.channel(number)
    try:
        findings = use.provider_of(lookup.settings(), channel).check()
    except SendError as error:
        return _back(number, sentences.failed_call(error.cause, error.detail), "error")
    wrong = [sentences.finding(f.code, f.detail) for f in findings if f.level == "error"]
    if wrong:
        return _back(number, _("The connection fails: %(why)s", why=". ".join(wrong)), "error")
    return _back(
        number, ". ".join([_("The connection works"), *(sentences.finding(f.code, f.detail) for f in findings)])
    )


@channels.post("/<int:number>/on")
@role("sender")
def switch_on(number: int) -> Response:
    """Put a stopped channel back into use."""
    use.switch_on(lookup.channel(number).id)
    return _back(number, _("The channel is switched on"))
