"""The WhatsApp sandbox: the Cloud API's wire, spoken to our own emulator on this machine."""

from __future__ import annotations

from pathlib import Path

from worker.providers import sandbox_address
from worker.providers.adapter import BODY_CAP, Timeouts
from worker.providers.base import LATER, Field, SendError
from worker.providers.http import HttpClient
from worker.providers.meta import VERSION, CloudApi


class SandboxWaba(CloudApi):
    key = "sandbox_waba"
    label = "WABA sandbox"
    pace = 20.0
    fields = (
        Field("phone_number_id"),
        Field("waba_id"),
        Field("access_token", kind="secret"),
        Field("app_secret", kind="secret"),
        Field("verify_token", kind="secret"),
    )

    def client(self, timeouts: Timeouts | None = None, cap: int = BODY_CAP) -> HttpClient:
        return HttpClient(allow_loopback=True, timeouts=timeouts, cap=cap)

    def base(self) -> str:
        return f"{emulator(self.settings['data'])}/{VERSION}"


def emulator(data: str) -> str:
    """The emulator's address, looked up anew for every call because a restart changes it.

    No setting of a channel can change it. Raises SendError (surely not sent) when it is not running.
    """
    address = sandbox_address.read(Path(data))
    if address is None:
        raise SendError(LATER, "connect_failed", "the sandbox is not running", counts=False, breaker=True)
    return address
