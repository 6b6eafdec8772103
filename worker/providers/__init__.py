"""The registry: one line for each Provider; the presets of the HTTP connector are files of their own."""

from __future__ import annotations

from worker.providers.base import Provider
from worker.providers.connector import HttpGateway, presets
from worker.providers.dialog360 import Dialog360
from worker.providers.sandbox_sms import SandboxSms
from worker.providers.sandbox_waba import SandboxWaba
from worker.providers.smpp import Smpp
from worker.providers.twilio import Twilio
from worker.providers.whatsapp_cloud import WhatsAppCloud

_REGISTERED: tuple[type[Provider], ...] = (
    SandboxWaba,
    SandboxSms,
    WhatsAppCloud,
    Dialog360,
    Smpp,
    Twilio,
    *presets(),
    HttpGateway,
)
PROVIDERS: dict[str, type[Provider]] = {provider.key: provider for provider in _REGISTERED}
