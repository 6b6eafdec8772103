"""What "Check connection" finds out about a number of the WhatsApp Cloud API; nothing is changed by it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from worker.providers import meta_webhooks
from worker.providers.base import Finding, SendError

if TYPE_CHECKING:
    from worker.providers.meta import CloudApi

LIMIT = "whatsapp_business_manager_messaging_limit"
NUMBER = (
    "id,display_phone_number,verified_name,name_status,status,quality_rating,throughput,code_verification_status,"
    "platform_type,account_mode,is_official_business_account,is_on_biz_app,health_status,webhook_configuration," + LIMIT
)
ACCOUNT = (
    "id,name,currency,timezone_id,account_review_status,business_verification_status,status,"
    "disable_marketing_messages_on_cloud_api,marketing_messages_onboarding_status"
)
PAGE = "100"
SCOPES = ("phone_number", "whatsapp_business_account", "application")  # the most particular address is called
# field of the number → the values that are well, the level and the code of any other
NUMBER_STATES = {
    "status": (("CONNECTED",), "error", "number_not_connected"),
    "platform_type": (("CLOUD_API",), "error", "number_not_cloud"),
    "name_status": (("APPROVED", "AVAILABLE_WITHOUT_REVIEW"), "warning", "number_name_not_approved"),
    "quality_rating": (("GREEN", "NA", "UNKNOWN"), "warning", "number_quality"),
}
ACCOUNT_STATES = {
    "account_review_status": (("APPROVED",), "error", "account_not_approved"),
    "business_verification_status": (("VERIFIED",), "warning", "account_not_verified"),
    "status": (("ACTIVE",), "warning", "account_not_active"),
}
LEVELS = {"BLOCKED": "error", "LIMITED": "warning"}


def findings(api: CloudApi) -> Iterator[Finding]:
    """Number, account, subscription and templates; ends with the first question that gets no answer."""
    try:
        number = _read(api, api.path_part("phone_number_id"), NUMBER)
        yield from _number(number)
        yield from _health(number)
        yield from _webhook(api, number)
        yield from _account(api)
    except SendError as error:
        yield Finding("error", error.cause, error.detail)


def _read(api: CloudApi, path: str, fields: str) -> dict[str, Any]:
    """An object with these fields, or with the usual ones where the version does not know one of them."""
    try:
        return api.get(path, {"fields": fields})
    except SendError as error:
        if error.cause != "100":
            raise
        return api.get(path, {})


def _number(number: Mapping[str, Any]) -> Iterator[Finding]:
    yield Finding("ok", "number_found", _shown(number, "display_phone_number", "verified_name"))
    yield from _states(number, NUMBER_STATES)
    if number.get("account_mode") == "SANDBOX":
        yield Finding("warning", "number_for_tests")
    if number.get("is_on_biz_app") is True:
        yield Finding("warning", "number_in_app")
    limit = meta_webhooks.daily_limit(number.get(LIMIT))
    if limit is not None:
        yield Finding("ok", "daily_limit", str(limit)) if limit >= 0 else Finding("ok", "daily_limit_none")


def _health(number: Mapping[str, Any]) -> Iterator[Finding]:
    """What the vendor says about each part of the way, in its own words."""
    health = number.get("health_status")
    for entity in _items(health.get("entities") if isinstance(health, dict) else None):
        level = LEVELS.get(str(entity.get("can_send_message")))
        if level is not None:
            errors = [_shown(e, "error_description", "possible_solution", by=" ") for e in _items(entity.get("errors"))]
            yield Finding(level, "health", " ".join(w for w in (str(entity.get("entity_type", "")), *errors) if w))


def _webhook(api: CloudApi, number: Mapping[str, Any]) -> Iterator[Finding]:
    """Compare the address that the vendor really calls with ours."""
    configured = number.get("webhook_configuration")
    ours = api.addresses.webhook
    if not isinstance(configured, dict) or not ours.startswith("http"):
        return
    theirs = next((str(configured[scope]) for scope in SCOPES if configured.get(scope)), "")
    if not theirs:
        yield Finding("error", "webhook_missing", ours)
    elif theirs != ours:
        yield Finding("warning", "webhook_elsewhere", theirs)


def _account(api: CloudApi) -> Iterator[Finding]:
    waba = api.path_part("waba_id")
    account = _read(api, waba, ACCOUNT)
    yield Finding("ok", "account_found", _shown(account, "name", "currency") or api.account())
    yield from _states(account, ACCOUNT_STATES)
    yield from _marketing(account, bool(api.settings.get("marketing_endpoint")))
    members = api.get(f"{waba}/phone_numbers", {"fields": "id", "limit": PAGE})
    if all(str(item.get("id")) != api.setting("phone_number_id") for item in _items(members.get("data"))):
        yield Finding("error", "number_not_in_account")
    if not list(_items(api.get(f"{waba}/subscribed_apps", {}).get("data"))):
        yield Finding("error", "webhook_not_subscribed")
    approved = api.get(f"{waba}/message_templates", {"fields": "name", "limit": "1", "status": "APPROVED"})
    if not list(_items(approved.get("data"))):
        yield Finding("warning", "no_templates")


def _marketing(account: Mapping[str, Any], chosen: bool) -> Iterator[Finding]:
    """Whether marketing templates can go the way that was chosen for them."""
    if account.get("disable_marketing_messages_on_cloud_api") is True and not chosen:
        yield Finding("error", "marketing_elsewhere")
    status = account.get("marketing_messages_onboarding_status")
    if chosen and status is not None and str(status).upper() != "ONBOARDED":
        yield Finding("error", "marketing_not_ready", str(status))


def _states(found: Mapping[str, Any], table: Mapping[str, tuple[tuple[str, ...], str, str]]) -> Iterator[Finding]:
    for field, (well, level, code) in table.items():
        value = found.get(field)
        if value is not None and str(value).upper() not in well:
            yield Finding(level, code, str(value))


def _shown(found: Mapping[str, Any], *fields: str, by: str = " · ") -> str:
    return by.join(str(found[field]) for field in fields if found.get(field))


def _items(data: Any) -> Iterator[dict[str, Any]]:
    return (item for item in data if isinstance(item, dict)) if isinstance(data, list) else iter(())
