"""What a deletion answers: generated clients decode it as the type that the published API names."""

import json

import pytest

from tests.integration.conftest import ApiServer

pytestmark = pytest.mark.integration


async def delete(server: ApiServer, path: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(await server.kubectl("delete", "--raw", path))
    return found


async def test_some_kinds_answer_with_the_object_that_went(api_server: ApiServer) -> None:
    namespace = "/api/v1/namespaces/default"
    await api_server.kubectl("create", "service", "clusterip", "web", "--tcp=80")
    await api_server.kubectl("create", "serviceaccount", "robot")
    await api_server.kubectl("create", "quota", "small", "--hard=pods=1")
    for path, kind in (("services/web", "Service"), ("serviceaccounts/robot", "ServiceAccount")):
        before = json.loads(await api_server.kubectl("get", "--raw", f"{namespace}/{path}"))
        assert await delete(api_server, f"{namespace}/{path}") == before
        assert before["kind"] == kind
        assert "NotFound" in await api_server.kubectl("get", "--raw", f"{namespace}/{path}", check=False)
    assert (await delete(api_server, f"{namespace}/resourcequotas/small"))["kind"] == "ResourceQuota"


async def test_others_answer_with_a_status(api_server: ApiServer) -> None:
    await api_server.kubectl("create", "configmap", "one")
    answer = await delete(api_server, "/api/v1/namespaces/default/configmaps/one")
    assert (answer["kind"], answer["status"]) == ("Status", "Success")
    assert answer["details"]["name"] == "one"  # type: ignore[index]
