"""ResourceQuotas and LimitRanges as a user meets them, races included."""

import asyncio
import contextlib
import json

import pytest

from controller.api.status import ApiError
from controller.kinds.kind import Object, ResourceKey
from tests.integration.conftest import ApiServer

pytestmark = pytest.mark.integration
CONFIG_MAPS = ResourceKey("", "configmaps")
SERVICES = ResourceKey("", "services")
QUOTA = """
apiVersion: v1
kind: ResourceQuota
metadata: {name: q}
spec: {hard: {%s}}
"""
RANGE = """
apiVersion: v1
kind: LimitRange
metadata: {name: r}
spec: {limits: [{type: Container, default: {cpu: 500m}, defaultRequest: {cpu: 200m}, max: {cpu: "1"}}]}
"""
ACCOUNT = '{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"default"}}'


def pod(name: str, **resources: Object) -> str:
    container = {"name": "c", "image": "busybox", "resources": resources}
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}}
    return json.dumps(made)


async def test_a_quota_is_never_exceeded_not_even_by_writes_at_once(api_server: ApiServer) -> None:
    await api_server.kubectl("create", "-f", "-", stdin=QUOTA % "configmaps: 3")

    async def one(index: int) -> bool:
        obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"c{index}", "namespace": "default"}}
        with contextlib.suppress(ApiError):
            await api_server.local.create(CONFIG_MAPS, obj)
            return True
        return False

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(index)) for index in range(10)]
    assert sum(task.result() for task in tasks) == 3
    refused = await api_server.kubectl("create", "cm", "more", check=False)
    assert "exceeded quota: q, requested: configmaps=1, used: configmaps=3, limited: configmaps=3" in refused
    await api_server.kubectl("delete", "cm", "--all", "--wait=false")
    assert await one(11)


async def test_what_failed_for_another_reason_is_not_counted(api_server: ApiServer) -> None:
    await api_server.kubectl("create", "-f", "-", stdin=QUOTA % "configmaps: 2")
    for _ in range(5):
        again = await api_server.kubectl("create", "cm", "same", check=False)
        refused = await api_server.kubectl("create", "cm", "BAD", check=False)
        assert "quota" not in refused
    assert "already exists" in again
    await api_server.kubectl("create", "cm", "other", "--dry-run=server")
    await api_server.kubectl("create", "cm", "other")


async def test_pods_get_defaults_and_stay_within_bounds(api_server: ApiServer) -> None:
    kubectl = api_server.kubectl
    await kubectl("create", "-f", "-", stdin=ACCOUNT)
    await kubectl("create", "-f", "-", stdin=RANGE)
    await kubectl("create", "-f", "-", stdin=QUOTA % 'requests.cpu: 500m, limits.memory: "1Gi"')
    refused = await kubectl("create", "-f", "-", stdin=pod("a"), check=False)
    assert 'pods "a" is forbidden: failed quota: q: must specify limits.memory for: c' in refused
    await kubectl("create", "-f", "-", stdin=pod("a", limits={"memory": "1Mi"}))
    got = json.loads(await kubectl("get", "pod", "a", "-o", "json"))
    assert got["spec"]["containers"][0]["resources"] == {
        "limits": {"cpu": "500m", "memory": "1Mi"},
        "requests": {"cpu": "200m", "memory": "1Mi"},
    }
    assert got["status"]["qosClass"] == "Burstable"
    assert "cpu request for container c" in got["metadata"]["annotations"]["kubernetes.io/limit-ranger"]
    refused = await kubectl("create", "-f", "-", stdin=pod("b", limits={"cpu": "2", "memory": "1Mi"}), check=False)
    assert "maximum cpu usage per Container is 1, but limit is 2" in refused
    await kubectl("create", "-f", "-", stdin=pod("b", limits={"memory": "1Mi"}))
    refused = await kubectl("create", "-f", "-", stdin=pod("c", limits={"memory": "1Mi"}), check=False)
    assert (
        "exceeded quota: q, requested: requests.cpu=200m, used: requests.cpu=400m, limited: requests.cpu=500m"
        in refused
    )


async def test_namespaces_set_how_far_pods_may_go(api_server: ApiServer) -> None:
    kubectl = api_server.kubectl
    await kubectl("create", "-f", "-", stdin=ACCOUNT)
    await kubectl(
        "label",
        "ns",
        "default",
        "pod-security.kubernetes.io/enforce=baseline",
        "pod-security.kubernetes.io/warn=restricted",
    )
    await kubectl("create", "-f", "-", stdin=pod("fine"))
    wrong = json.loads(pod("wrong"))
    wrong["spec"]["hostNetwork"] = True
    refused = await kubectl("create", "-f", "-", stdin=json.dumps(wrong), check=False)
    assert 'violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true)' in refused
    deployed = await kubectl(
        "create", "deployment", "d", "--image=busybox", "--warnings-as-errors", "--dry-run=server", check=False
    )
    assert 'would violate PodSecurity "restricted:latest"' in deployed
    refused = await kubectl(
        "label", "ns", "default", "--overwrite", "pod-security.kubernetes.io/enforce=max", check=False
    )
    assert "must be one of privileged, baseline, restricted" in refused
