"""Requests may be as long as upstream takes them: kubectl puts the words of a command into the URL."""

import pytest

from tests.integration.conftest import ApiServer

pytestmark = pytest.mark.integration


async def test_a_long_request_line_is_read(api_server: ApiServer) -> None:
    names = ",".join(f"name-{number}" for number in range(20_000))
    path = f"/api/v1/namespaces?labelSelector=kubernetes.io/metadata.name%20in%20({names},default)"
    code, text = await api_server.request("GET", path, "", "application/json")
    assert code == 200
    assert '"name":"default"' in text
    assert "kube-system" not in text
