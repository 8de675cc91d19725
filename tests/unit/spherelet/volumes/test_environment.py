"""Environment of a container: order, expansion, references, and the words of its failures."""

import asyncio
import contextlib
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import pytest

from common.clock import SystemClock
from common.errors import Terminal
from spherelet.volumes.environment import Environment, service_variables
from spherelet.volumes.sources import Sources
from tests.support.object_sources import FakeApi


@contextlib.asynccontextmanager
async def environment(api: FakeApi) -> AsyncIterator[Environment]:
    sources = Sources(api, SystemClock())
    async with asyncio.TaskGroup() as group:
        task = group.create_task(sources.run())
        yield Environment(sources, {"cpu": "4", "memory": "8Gi"})
        task.cancel()


def a_pod(container: dict[str, Any]) -> dict[str, Any]:
    return {
        "metadata": {"name": "web-0", "namespace": "shop", "uid": "u1", "labels": {"app": "web"}},
        "spec": {"nodeName": "host-1", "serviceAccountName": "default", "containers": [{"name": "main", **container}]},
    }


async def build(api: FakeApi, **container: Any) -> dict[str, str]:
    pod = a_pod(container)
    async with environment(api) as built:
        return dict(await built(pod, pod["spec"]["containers"][0], "10.64.0.5", "172.30.0.11"))


async def test_env_wins_over_env_from_which_wins_over_services() -> None:
    api = FakeApi()
    api.put("configmaps", "shop", "cfg", data={"COLOR": "blue", "KUBERNETES_SERVICE_PORT": "1", "SIZE": "10"})
    api.put(
        "services", "default", "kubernetes", spec={"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443}]}
    )
    values = await build(
        api,
        envFrom=[{"configMapRef": {"name": "cfg"}}, {"prefix": "P_", "configMapRef": {"name": "cfg"}}],
        env=[
            {"name": "SIZE", "value": "$(COLOR)-$(KUBERNETES_SERVICE_HOST)-$(LATER)"},
            {"name": "LATER", "value": "x"},
        ],
    )
    assert values["SIZE"] == "blue-10.96.0.1-$(LATER)"
    assert values["P_SIZE"] == "10"
    assert values["KUBERNETES_SERVICE_PORT"] == "1"
    assert values["KUBERNETES_PORT_443_TCP_ADDR"] == "10.96.0.1"


async def test_references_to_fields_resources_and_secrets() -> None:
    api = FakeApi()
    api.put("secrets", "shop", "db", type="Opaque", data={"password": b64encode(b"s3cret").decode()})
    values = await build(
        api,
        resources={"limits": {"memory": "64Mi"}, "requests": {"cpu": "250m"}},
        env=[
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
            {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1m"}}},
            {"name": "CPU_MAX", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}},
            {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": "none", "key": "x", "optional": True}}},
        ],
    )
    assert values == {
        "POD": "web-0", "APP": "web", "IP": "10.64.0.5", "HOST": "172.30.0.11",
        "MEMORY": "64", "CPU": "250", "CPU_MAX": "4", "PASSWORD": "s3cret",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("container", "message"),
    [
        ({"envFrom": [{"configMapRef": {"name": "no"}}]}, 'configmap "no" not found'),
        ({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "no", "key": "k"}}}]}, 'secret "no" not found'),
        (
            {"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "cfg", "key": "k"}}}]},
            "couldn't find key k in ConfigMap shop/cfg",
        ),
    ],
)
async def test_missing_references_are_named(container: dict[str, Any], message: str) -> None:
    api = FakeApi()
    api.put("configmaps", "shop", "cfg", data={})
    pod = a_pod(container)
    async with environment(api) as built:
        with pytest.raises(Terminal, match=message):
            await built(pod, pod["spec"]["containers"][0], "10.64.0.5", "172.30.0.11")


def test_service_links_follow_the_namespace() -> None:
    services = {
        ("default", "kubernetes"): {"address": "10.96.0.1", "ports": [{"port": 443, "protocol": "TCP"}]},
        ("shop", "cart-api"): {"address": "10.96.0.9", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
        ("other", "db"): {"address": "10.96.0.7", "ports": [{"port": 1, "protocol": "TCP"}]},
    }
    with_links = service_variables(services, "shop", links=True)
    assert with_links["CART_API_SERVICE_PORT_HTTP"] == "80"
    assert with_links["CART_API_PORT"] == "tcp://10.96.0.9:80"
    assert not any(name.startswith("DB_") for name in with_links)
    assert set(service_variables(services, "shop", links=False)) < set(with_links)
