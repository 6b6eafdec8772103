"""A Provider that no vendor has: one field of every kind, in every group, and every optional gift."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worker.providers.base import Accepted, Field, Finding, Outgoing, Provider, SendError


class Fictional(Provider):
    key = "fictional"
    kind = "sms"
    label = "Fictional gateway"
    pace = 5.0
    supports = frozenset({"reports", "inbound", "register"})
    fields = (
        Field("base_url", default="https://93.184.216.34"),
        Field("api_key", kind="secret"),
        Field("spare_key", kind="secret", required=False),
        Field("webhook_secret", kind="secret", required=False),
        Field("sender", required=False),
        Field("port", kind="integer", required=False),
        Field("flash", kind="boolean", required=False, default=False),
        Field("split_by", kind="choice", required=False, default="sar", choices=("sar", "udh8")),
        Field("url", required=False, default="{base_url}/send", group="request"),
        Field("recipe", kind="lines", required=False, default="to = {to}", group="outcome"),
        Field("dlr_url", required=False, default="{status_url}", group="report"),
        Field("knob", required=False, group="advanced"),
    )
    findings: list[Finding] | Exception = [Finding("ok", "account_found", "Anna"), Finding("warning", "no_templates")]
    registered: list[str] = []

    @classmethod
    def faults(cls, settings: Mapping[str, Any]) -> list[tuple[str, str]]:
        return [("recipe", line) for line in str(settings["recipe"]).splitlines() if "=" not in line]

    def send(self, out: Outgoing) -> Accepted:
        raise NotImplementedError

    def answerable(self) -> bool:
        return not str(self.settings.get("sender") or "").isalpha()

    def check(self) -> list[Finding]:
        if isinstance(self.findings, Exception):
            raise self.findings
        return self.findings

    def dry_run(self, out: Outgoing) -> str:
        return f"POST {self.settings['base_url']}\nX-Key: {self.settings['api_key']}\n\nto={out.phone}&text={out.text}"

    def register(self) -> None:
        if not self.settings["api_key"].startswith("good"):
            raise SendError("stop_channel", "http_401")
        self.registered.append(self.addresses.status)


def given(**changes: Any) -> dict[str, Any]:
    """What a program sends to make such a channel."""
    return {
        "provider": "fictional",
        "kind": "sms",
        "name": "Ours",
        "settings": {"api_key": "good-key-0123456789", **changes},
    }


def typed(**changes: str) -> dict[str, str]:
    """What a person sends with the form; "" for a field that is not filled in."""
    fields = {"base_url": "https://93.184.216.34", "api_key": "good-key-0123456789", "split_by": "sar"}
    fields |= {"url": "{base_url}/send", "recipe": "to = {to}", "dlr_url": "{status_url}"}
    names = {f.name: f"setting-{f.name}" for f in Fictional.fields}
    found = {names[name]: value for name, value in fields.items()}
    found |= {"provider": "fictional", "name": "Ours", "per_second": "5"}
    return found | {names.get(name, name): value for name, value in changes.items()}
