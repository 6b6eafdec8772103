"""The WhatsApp Cloud API as Meta runs it. Source: developers.facebook.com/docs/whatsapp/cloud-api."""

from __future__ import annotations

from worker.providers.base import STOP_CHANNEL, Field, SendError
from worker.providers.meta import VERSION, CloudApi


class WhatsAppCloud(CloudApi):
    supports = CloudApi.supports | {"register"}
    key = "whatsapp_cloud"
    label = "WhatsApp Cloud API"
    pace = 20.0
    fields = (
        Field("phone_number_id"),
        Field("waba_id"),
        Field("access_token", kind="secret"),
        Field("app_secret", kind="secret"),
        Field("verify_token", kind="secret"),
        Field("app_secret_previous", kind="secret", required=False, group="advanced"),
        Field("base_url", default="https://graph.facebook.com", group="advanced"),
        Field("api_version", default=VERSION, group="advanced"),
        Field("marketing_endpoint", kind="boolean", required=False, default=False),
    )

    def base(self) -> str:
        url = self.setting("base_url").rstrip("/")
        if not url.startswith(("https://", "http://")):
            raise SendError(STOP_CHANNEL, "settings_invalid", "base_url")
        return f"{url}/{self.setting('api_version').strip('/') or VERSION}"

    def register(self) -> None:
        """Subscribe the app to the account, with our address and token instead of the app's own."""
        ours = {"override_callback_uri": self.addresses.webhook, "verify_token": self.setting("verify_token")}
        self.post(f"{self.path_part('waba_id')}/subscribed_apps", ours)
