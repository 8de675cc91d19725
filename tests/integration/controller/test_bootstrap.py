"""What clients find in a cluster that has just begun."""

import json

import pytest

from controller.api.bootstrap import bootstrap
from tests.integration.conftest import ApiServer

pytestmark = pytest.mark.integration


async def got(server: ApiServer, *what: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(await server.kubectl("get", *what, "-o", "json"))
    return found


async def test_the_api_has_a_service_with_endpoints_in_both_forms(api_server: ApiServer) -> None:
    for address, port in (("127.0.0.1", 6443), ("192.0.2.7", 7443)):
        # The second time, the server is somewhere else.
        await bootstrap(api_server.local, address, "10.96.0.0/16", port)
        slices = json.loads(
            await api_server.kubectl("get", "endpointslices", "-l", "kubernetes.io/service-name", "-o", "json")
        )
        assert [each["addresses"] for item in slices["items"] for each in item["endpoints"]] == [[address]]
        endpoints = await got(api_server, "endpoints", "kubernetes")
        ports = [{"name": "https", "port": port, "protocol": "TCP"}]
        assert endpoints["subsets"] == [{"addresses": [{"ip": address}], "ports": ports}]


async def test_the_range_of_services_is_shown_as_ready(api_server: ApiServer) -> None:
    found = json.loads(await api_server.kubectl("get", "servicecidr", "kubernetes", "-o", "json"))
    assert found["spec"] == {"cidrs": ["10.96.0.0/16"]}
    assert [(each["type"], each["status"]) for each in found["status"]["conditions"]] == [("Ready", "True")]


ADDRESS = """
apiVersion: networking.k8s.io/v1
kind: IPAddress
metadata: {name: "%s"}
spec: {parentRef: {group: g, resource: r, namespace: shop, name: web}}
"""


async def test_addresses_are_named_as_they_are_written(api_server: ApiServer) -> None:
    for name in ("255.255.255.255", "fe80::42:1dff:fe84:f9e2"):
        assert "created" in await api_server.kubectl("create", "-f", "-", stdin=ADDRESS % name)
        assert name in await api_server.kubectl("get", "ipaddress", name, "-o", "name")
    for name in ("fe80:0::1", "web", "1.2.3"):
        assert "is invalid: metadata.name" in await api_server.kubectl(
            "create", "-f", "-", stdin=ADDRESS % name, check=False
        )
