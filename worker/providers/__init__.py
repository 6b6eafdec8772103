"""The registry: one line for each Provider."""

from __future__ import annotations

from worker.providers.base import Provider
from worker.providers.dialog360 import Dialog360
from worker.providers.sandbox_sms import SandboxSms
from worker.providers.sandbox_waba import SandboxWaba
from worker.providers.smpp import Smpp
from worker.providers.whatsapp_cloud import WhatsAppCloud

PROVIDERS: dict[str, type[Provider]] = {
    provider.key: provider
    for provider in (
        SandboxWaba,
        SandboxSms,
        WhatsAppCloud,
        Smpp,
        Dialog360,
    )
}
