"""/healthz: whether the parts work, for a supervisor or a load balancer, without data; /metrics: the numbers."""

from __future__ import annotations

import peewee
from flask import Blueprint, Response, current_app, jsonify, make_response

from webapp.auth import public, role
from worker import clock, db, delivery, metrics

health = Blueprint("health", __name__)


@health.get("/healthz")
@public
def healthz() -> Response:
    """200 when database, queue and worker answer, else 503; each part says ok or what is missing."""
    parts = {"database": _database(), "queue": _queue(), "worker": _worker()}
    good = all(state == "ok" for state in parts.values())
    return make_response(jsonify(parts), 200 if good else 503)


@health.get("/metrics")
@role("viewer")
def numbers() -> Response:
    """What Prometheus reads; the token is sent as a bearer token."""
    response = make_response(metrics.text())  # nosemgrep: make-response-with-unknown-content (plain text)
    response.headers["Content-Type"] = metrics.CONTENT_TYPE
    return response


def _database() -> str:
    try:
        with db.connection():
            db.value("SELECT 1")
    except peewee.PeeweeException:
        return "error"
    return "ok"


def _queue() -> str:
    settings = current_app.extensions["molva"].settings
    if settings.queue_url:
        return "ok"  # the worker's heartbeat tells: without Redis there is none
    return "ok" if settings.queue_path.exists() else "missing"


def _worker() -> str:
    try:
        with db.connection():
            latest = db.value("SELECT max(heartbeat_at) FROM worker")
    except peewee.PeeweeException:
        return "error"
    if latest is None:
        return "missing"
    return "ok" if latest >= clock.now() - delivery.ALIVE else "late"
