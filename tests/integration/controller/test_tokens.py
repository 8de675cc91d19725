"""Tokens and access of what was made a moment ago: who was told of a write can build on it."""

import asyncio
import json

import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from common.clock import SystemClock
from controller.api import reviews
from controller.api.access import MASTERS, CertInfo
from controller.api.authz import Authorization
from controller.api.request import Reply, Request
from controller.api.tokens import SERVICE_ACCOUNTS, Tokens
from controller.kinds.kind import Object, ResourceKey
from tests.integration.conftest import ApiServer

pytestmark = pytest.mark.integration


@pytest.fixture
def server(api_server: ApiServer) -> ApiServer:
    """An API that issues and reviews tokens."""
    cache = api_server.api.ports.cache

    def uid_of(resource: ResourceKey, namespace: str, name: str) -> str | None:
        entry = cache.get(resource, namespace, name)
        return entry.uid if entry is not None else None

    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(*form)
    tokens = Tokens(pem, "https://issuer.test", SystemClock(), uid_of)
    reviews.install(api_server.api.routes, tokens, Authorization(cache), jwks_uri="https://issuer.test/keys")
    return api_server


async def post(server: ApiServer, path: str, obj: Object, accept: str = "application/json") -> Reply:
    """Straight into the pipeline: no socket gives the cache time to catch up."""

    async def read() -> bytes:
        return orjson.dumps(obj)

    headers = {"Content-Type": "application/json", "Accept": accept}
    answer = await server.api.handle(Request("POST", path, {}, headers, CertInfo("admin", (MASTERS,)), read))
    assert isinstance(answer, Reply)
    return answer


def body(reply: Reply) -> Object:
    assert isinstance(reply.body, bytes)
    found: Object = json.loads(reply.body)
    return found


async def test_an_account_has_tokens_at_once(server: ApiServer) -> None:
    async def one(name: str) -> None:
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": "default"}}
        await server.local.create(SERVICE_ACCOUNTS, account)
        asked = await post(server, f"/api/v1/namespaces/default/serviceaccounts/{name}/token", {"spec": {}})
        assert asked.status == 201, body(asked)
        review = {"spec": {"token": body(asked)["status"]["token"]}}
        found = body(await post(server, "/apis/authentication.k8s.io/v1/tokenreviews", review))["status"]
        assert (found["authenticated"], found["user"]["username"]) == (True, f"system:serviceaccount:default:{name}")

    async with asyncio.TaskGroup() as group:
        for index in range(100):
            group.create_task(one(f"robot-{index}"))


async def test_a_review_is_no_table(server: ApiServer) -> None:
    asked = {"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}}
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    refused = await post(server, path, asked, "application/json;as=Table;v=v1;g=meta.k8s.io")
    assert (refused.status, body(refused)["reason"]) == (406, "NotAcceptable")
    assert body(await post(server, path, asked))["status"]["allowed"] is True
