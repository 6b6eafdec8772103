"""The new version is started on the folder of the first release, and sending goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests

from tests import old
from tests.product import Product, wait

pytestmark = pytest.mark.journey


def test_what_waited_in_the_first_release_leaves_in_this_one(tmp_path: Path) -> None:
    product = Product(tmp_path / "data")
    old.install(product.settings)
    product.start()
    try:
        head = {"Authorization": f"Bearer {old.TOKEN}"}

        def state() -> dict[str, str]:
            url = f"{product.url}/api/v1/broadcasts/1/messages"
            return {m["phone"]: m["status"] for m in requests.get(url, headers=head, timeout=10).json()["items"]}

        wait(lambda: state() == {old.WAITING: "delivered", old.GONE: "delivered"}, 30)
        assert [facts["phone"] for facts in product.accepted()] == [old.WAITING]
        assert requests.get(f"{product.url}/healthz", timeout=10).status_code == 200
    finally:
        assert product.stop() == 0
