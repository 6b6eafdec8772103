"""Channels: the sending accounts, how they are set up, whether they work, and their templates."""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, quote_plus

from flask import Blueprint, Response, abort, make_response, render_template, request, url_for
from flask_babel import gettext as _
from flask_babel import ngettext

from webapp import htmx, lookup, sentences, words
from webapp.auth import Refused, local_path, me, role, step_up
from webapp.forms import channel as forms
from webapp.forms.channel import ChannelForm
from webapp.sandbox_numbers import MAGIC
from worker import channel_health, media, rendering, vault
from worker import channels as use
from worker.models import Broadcast, Channel, MessageTemplate
from worker.problems import Invalid
from worker.providers import PROVIDERS
from worker.providers.base import Finding, Outgoing, Provider, SendError

log = logging.getLogger("molva.web")

channels = Blueprint("channels", __name__, url_prefix="/channels")
LISTED = 500
TEMPLATES = 1_000
EXAMPLE = Outgoing("+79001234567", "1.example", "Hello, Анна")


# --- the list ---------------------------------------------------------------------------------------


@channels.get("")
@role("sender")
def index() -> str:
    found = list(use.living().order_by(Channel.kind, Channel.name, Channel.id).limit(LISTED))
    stops = {c.id: sentences.channel_stop(c.stop_reason, c.stop_detail) for c in found}
    replies = {c.id: use.answerable(lookup.settings(), c) for c in found}
    return render_template("channels/list.html", items=found, stops=stops, replies=replies, providers=PROVIDERS)


# --- a new one --------------------------------------------------------------------------------------


def _offered() -> list[str]:
    """What may be added: everything but the sandbox, which comes back only after it was deleted."""
    gone = {c.provider for c in Channel.select(Channel.provider).where(Channel.state == use.DELETED)}
    return [key for key in PROVIDERS if key not in use.SANDBOX or key in gone]


def _chosen(key: str) -> type[Provider] | None:
    if not key:
        return None
    if key not in _offered():
        abort(404)
    return PROVIDERS[key]


def _new_facts(form: ChannelForm | None) -> dict[str, Any]:
    return {"form": form, "offers": forms.offers(_offered()), "channel": None, "kinds": words.KINDS}


@channels.get("/new")
@role("admin")
@step_up
def new() -> str:
    """First which provider, then its fields."""
    provider = _chosen(request.args.get("provider", ""))
    form = _form(provider, None) if provider else None
    return render_template("channels/new.html", **_new_facts(form))


@channels.get("/new/fields")
@role("admin")
@step_up
def fields() -> Response:
    """The part of that page which depends on the provider."""
    provider = _chosen(request.args.get("provider", ""))
    form = _form(provider, None) if provider else None
    return htmx.partial("channels/_new.html", **_new_facts(form))


def _form(provider: type[Provider], given: Any, channel: Channel | None = None) -> ChannelForm:
    fixed = provider.key in use.SANDBOX
    endings = {}
    if channel is not None and not fixed:
        try:
            endings = use.endings(lookup.settings(), channel)
        except vault.VaultError:
            endings = {}
    return ChannelForm(provider, given, channel, endings, fixed)


@channels.post("/new")
@role("admin")
@step_up
def create() -> Response:
    provider = _chosen(request.form.get("provider", ""))
    if provider is None:
        abort(404)
    form = _form(provider, request.form)
    try:
        channel = use.add(lookup.settings(), {**form.values(), "provider": provider.key}, me().name)
    except Invalid as error:
        form.refuse(error.problems)
        return make_response(render_template("channels/new.html", **_new_facts(form)), 422)
    return _back(channel.id, _("Saved. Now check the connection"))


# --- one of them ------------------------------------------------------------------------------------


def _facts(channel: Channel, findings: list[Finding] | None = None) -> dict[str, Any]:
    found = list(
        MessageTemplate.select()
        .where(MessageTemplate.channel == channel.id)
        .order_by(MessageTemplate.name, MessageTemplate.language)
        .limit(TEMPLATES)
    )
    settings = lookup.settings()
    copied, locked = {}, False
    try:
        copied = use.generated(settings, channel) if me().can("admin") else {}
        use.all_settings(settings, channel)
    except vault.VaultError:
        locked = True
    return {
        "channel": channel,
        "provider": PROVIDERS[channel.provider],
        "stop": sentences.channel_stop(channel.stop_reason, channel.stop_detail),
        "may_switch_on": channel.stop_reason != use.OFF or me().can("admin"),
        "health": channel_health.of(channel),
        "answerable": None if locked else use.answerable(lookup.settings(), channel),
        "locked": locked,
        "addresses": use.pasted(settings, channel),
        "public": bool(settings.base_url),
        "copied": copied,
        "values": _values(channel),
        "dry_run": None if locked or not me().can("admin") else _dry_run(channel),
        "findings": findings,
        "said": _said,
        "templates": [
            (t, rendering.slots(t.components, t.parameter_format), rendering.unsupported(t.components)) for t in found
        ],
        "sandbox": _sandbox(channel),
        "media": media.living(channel.id) if "media" in PROVIDERS[channel.provider].supports else None,
        "media_until": lambda at: at + media.LIFE,
        "special": [(s, sentences.special(s.key, channel.kind)) for s in MAGIC] if _sandbox(channel) else [],
    }


def _said(found: Finding) -> str:
    return sentences.finding(found.code, found.detail)


def _sandbox(channel: Channel) -> bool:
    return channel.provider in use.SANDBOX


def _values(channel: Channel) -> list[tuple[Any, str]]:
    """The open settings that are short enough to be seen at a glance: label and value."""
    shown = []
    for one in PROVIDERS[channel.provider].fields:
        value = channel.settings.get(one.name)
        if one.secret or one.group or one.kind == "lines" or value in (None, ""):
            continue
        if one.kind == "boolean":
            value = _("yes") if value else _("no")
        elif one.kind == "choice":
            value = str(words.choice_label(str(value)))
        shown.append((words.setting_label(one.name), str(value)))
    return shown


def _dry_run(channel: Channel) -> str | None:
    """The exact request of an example, without its secrets; None where the Provider cannot tell."""
    settings = lookup.settings()
    try:
        provider = use.provider_of(settings, channel)
        try:
            hidden = [str(v) for v in vault.unseal(settings, channel.secrets).values() if isinstance(v, str) and v]
            return _masked(provider.dry_run(EXAMPLE), hidden) or None
        finally:
            provider.close()
    except (SendError, ValueError, LookupError) as error:
        log.info("channel %d has no dry run: %s", channel.id, type(error).__name__)
        return None


_BASIC = re.compile(r"(?i)\b(basic)\s+[a-z0-9+/=_-]{4,}")


def _masked(text: str, hidden: Iterable[str]) -> str:
    """`text` without these values, in whatever way a request writes them."""
    for value in sorted(set(hidden), key=len, reverse=True):
        raw = value.encode()
        written = {value, quote(value), quote(value, safe=""), quote_plus(value), base64.b64encode(raw).decode()}
        for form in sorted(written, key=len, reverse=True):
            text = text.replace(form, "•••")
    return _BASIC.sub(r"\1 •••", text)


@channels.get("/<int:number>")
@role("sender")
def show(number: int) -> str:
    return render_template("channels/show.html", **_facts(lookup.channel(number)))


@channels.get("/<int:number>/health")
@role("sender")
def health_part(number: int) -> Response:
    """State, pauses and numbers as they are now."""
    return htmx.partial("channels/_health.html", **_facts(lookup.channel(number)))


def _back(number: int, toast: str, level: str = "ok") -> Response:
    return htmx.redirect(url_for("channels.show", number=number), toast=toast, level=level)


# --- what may be done to it -------------------------------------------------------------------------


@channels.route("/<int:number>/edit", methods=["GET", "POST"])
@role("admin")
@step_up
def edit(number: int) -> Response:
    """Change the settings; secrets that are left empty stay."""
    channel = lookup.channel(number)
    given = request.form if request.method == "POST" else None
    form = _form(PROVIDERS[channel.provider], given, channel)
    status = 200
    if given is not None:
        try:
            use.change(lookup.settings(), channel, form.values(), me().name)
            return _back(number, _("Saved"))
        except Invalid as error:
            form.refuse(error.problems)
            status = 422
        except vault.VaultError:
            form.form_errors.append(sentences.finding("credentials_locked", ""))
            status = 422
    return make_response(render_template("channels/edit.html", form=form, channel=channel), status)


@channels.route("/<int:number>/delete", methods=["GET", "POST"])
@role("admin")
@step_up
def delete(number: int) -> Response:
    """Forget the channel, after asking; refused while a broadcast needs it."""
    channel = lookup.channel(number)
    if request.method == "GET":
        reports = Broadcast.select().where((Broadcast.channel == number) & (Broadcast.kind == "list")).count()
        using = use.use_of(channel)
        return htmx.question("channels/_delete.html", row=channel, reports=reports, using=using)
    try:
        use.delete(channel, me().name)
    except use.InUse as error:
        return _back(number, sentences.in_use(error), "error")
    return htmx.redirect(url_for("channels.index"), toast=_("Deleted: %(name)s", name=channel.name))


@channels.route("/<int:number>/off", methods=["GET", "POST"])
@role("admin")
def switch_off(number: int) -> Response:
    """Take the channel out of use, after asking."""
    channel = lookup.channel(number)
    if request.method == "GET":
        going = (Broadcast.channel == number) & (Broadcast.state == "running") & (Broadcast.kind == "list")
        running = Broadcast.select().where(going).count()
        return htmx.question("channels/_off.html", row=channel, running=running)
    use.switch_off(channel.id, me().name)
    return _back(number, _("The channel is switched off"))


@channels.post("/<int:number>/on")
@role("sender")
def switch_on(number: int) -> Response:
    """Put a stopped channel back into use. What an administrator switched off, only one switches on."""
    channel = lookup.channel(number)
    if channel.stop_reason == use.OFF and not me().can("admin"):
        raise Refused("admin")
    use.switch_on(channel.id, me().name)
    return _back(number, _("The channel is switched on"))


@channels.post("/<int:number>/check")
@role("sender")
def check(number: int) -> Response:
    """A harmless call to the provider: everything it finds, in place."""
    channel = lookup.channel(number)
    return _found(channel, use.check(lookup.settings(), channel))


def _found(channel: Channel, findings: list[Finding]) -> Response:
    if htmx.asked():
        return htmx.partial("channels/_check.html", findings=findings, said=_said)
    return make_response(render_template("channels/show.html", **_facts(channel, findings)))


@channels.post("/<int:number>/register")
@role("admin")
def register(number: int) -> Response:
    """Have the provider send its callbacks to our address, where it lets us say so."""
    channel = lookup.channel(number)
    if "register" not in PROVIDERS[channel.provider].supports:
        abort(404)
    return _found(channel, use.register(lookup.settings(), channel, me().name))


@channels.post("/<int:number>/media")
@role("sender")
def upload(number: int) -> Response:
    """Hand a file over for the headers of templates."""
    channel = lookup.channel(number)
    if "media" not in PROVIDERS[channel.provider].supports:
        abort(404)
    given = request.files.get("file")
    if given is None or not given.filename:
        return _back(number, _("Choose a file"), "error")
    try:
        made = media.upload(lookup.settings(), channel, given.read(), given.filename, me().name)
    except vault.VaultError:
        return _back(number, sentences.finding("credentials_locked", ""), "error")
    except SendError as error:
        return _back(number, sentences.failed_call(error.cause, error.detail), "error")
    return _back(number, _("The provider keeps the file. Its id: %(id)s", id=made.media_id))


@channels.post("/<int:number>/templates")
@role("sender")
def refresh(number: int) -> Response:
    """Fetch the templates of the account."""
    channel = lookup.channel(number)
    if PROVIDERS[channel.provider].kind != "waba":
        return _back(number, _("This channel has no templates"), "info")
    try:
        found = use.sync_templates(lookup.settings(), channel.id)
    except vault.VaultError:
        return _back(number, sentences.finding("credentials_locked", ""), "error")
    except SendError as error:
        return _back(number, sentences.failed_call(error.cause, error.detail), "error")
    toast = ngettext("%(num)s template found", "%(num)s templates found", found)
    back = local_path(request.form.get("next"))
    return htmx.redirect(back, toast=toast) if back else _back(number, toast)
