"""WhatsApp through 360dialog: the Cloud API's wire with an address, a key and a callback check of its own.

One key is one number, so paths name neither a version nor a number. Callbacks are not signed: they carry a header
that we had registered, beside our unguessable address. Source: docs.360dialog.com.
"""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from worker.providers.base import STOP_CHANNEL, Field, Finding, RawCallback, SendError, TemplateData
from worker.providers.meta import MOST_PAGES, PAGE, CloudApi, items, read_template

HEADER = "d360-webhook-secret"
TEMPLATES = "v1/configs/templates"


class Dialog360(CloudApi):
    """`webhook_secret`: what the header of every callback must hold; without it none is believed."""

    key = "360dialog"
    label = "360dialog"
    pace = 20.0
    supports = CloudApi.supports | {"register"}
    fields = (
        Field("api_key", kind="secret"),
        Field("phone_number_id", required=False),
        Field("webhook_secret", kind="secret", required=False),
        Field("base_url", default="https://waba-v2.360dialog.io", group="advanced"),
        Field("marketing_endpoint", kind="boolean", required=False, default=False, group="advanced"),
    )

    def base(self) -> str:
        url = self.setting("base_url").rstrip("/")
        if not url.startswith(("https://", "http://")):
            raise SendError(STOP_CHANNEL, "settings_invalid", "base_url")
        return url

    def sender(self) -> str:
        return ""

    def credentials(self) -> dict[str, str]:
        return {"D360-API-KEY": self.setting("api_key")}

    def account(self) -> str:
        return ""  # the key does not tell which account its number belongs to

    def limit(self) -> int | None:
        return None

    def file_address(self, url: str) -> str:
        """The vendor behind it names its own address, which is reached through this one's."""
        there = urlsplit(url)
        return f"{self.base()}/{there.path.lstrip('/')}" + (f"?{there.query}" if there.query else "")

    def templates(self) -> list[TemplateData]:
        found: list[TemplateData] = []
        offset = 0
        for _ in range(MOST_PAGES):
            page = self.get(TEMPLATES, {"limit": str(PAGE), "offset": str(offset)})
            listed = list(items(page.get("waba_templates")))
            found.extend(template for item in listed if (template := read_template(item)) is not None)
            offset += len(listed)
            total = page.get("total")
            if not listed or not isinstance(total, int) or offset >= total:
                break
        return found

    def check(self) -> list[Finding]:
        """Whether the key is accepted, and whether there is anything to send and a way to be called back."""
        try:
            listed = self.templates()
        except SendError as error:
            return [Finding("error", error.cause, error.detail)]
        found = [Finding("ok", "key_accepted")]
        if not any(template.status == "APPROVED" for template in listed):
            found.append(Finding("warning", "no_templates"))
        if not self.setting("webhook_secret"):
            found.append(Finding("error", "webhook_secret_missing"))
        return found

    def ping(self) -> None:
        self.get(TEMPLATES, {"limit": "1"})

    def register(self) -> None:
        secret = self.setting("webhook_secret")
        if not secret:
            raise SendError(STOP_CHANNEL, "settings_invalid", "webhook_secret")
        self.post("v1/configs/webhook", {"url": self.addresses.webhook, "headers": {HEADER: secret}})

    def handshake(self, callback: RawCallback) -> str | None:
        return None  # registered by a call of ours, without a question from the other side

    def verify(self, callback: RawCallback) -> bool:
        secret = self.setting("webhook_secret")
        given = callback.headers.get(HEADER, "")
        return bool(secret) and hmac.compare_digest(given.encode("utf-8", "replace"), secret.encode())
