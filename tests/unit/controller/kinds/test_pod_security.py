"""Pod Security Standards, control by control."""

from typing import Any

import pytest

from controller.kinds.kind import Object
from controller.kinds.pod_security import violations

SAFE: Object = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def spec(context: Object | None = None, container: Object | None = None, **more: Any) -> Object:
    return {"containers": [{"name": "c", "securityContext": context or {}, **(container or {})}], **more}


@pytest.mark.parametrize(
    ("pod", "said"),
    [
        (spec(hostNetwork=True, hostPID=True), "host namespaces (hostNetwork=true, hostPID=true)"),
        (spec({"privileged": True}), 'privileged (container "c" must not set securityContext.privileged=true)'),
        (
            spec({"capabilities": {"add": ["NET_ADMIN", "CHOWN"]}}),
            'non-default capabilities (container "c" must not include "NET_ADMIN" in securityContext.capabilities.add)',
        ),
        (spec(volumes=[{"name": "v", "hostPath": {"path": "/"}}]), 'hostPath volumes (volume "v")'),
        (
            spec(container={"ports": [{"containerPort": 1, "hostPort": 80}]}),
            'hostPort (container "c" uses hostPort 80)',
        ),
        (
            spec({"procMount": "Unmasked"}),
            'procMount (container "c" must not set securityContext.procMount to "Unmasked")',
        ),
        (
            spec({"seccompProfile": {"type": "Unconfined"}}),
            'seccompProfile (container "c" must not set securityContext.seccompProfile.type to "Unconfined")',
        ),
        (spec(securityContext={"sysctls": [{"name": "kernel.msgmax"}]}), "forbidden sysctls (kernel.msgmax)"),
        (spec({"seLinuxOptions": {"type": "spc_t"}}), "seLinuxOptions (forbidden type, user or role is set)"),
        (
            spec(container={"livenessProbe": {"httpGet": {"host": "10.0.0.1"}}}),
            'probe or lifecycle host (container "c" must not set host)',
        ),
    ],
)
def test_baseline(pod: Object, said: str) -> None:
    assert violations("baseline", {}, pod) == [said]
    assert violations("privileged", {}, pod) == []


def test_a_plain_pod_is_baseline_and_not_restricted() -> None:
    assert violations("baseline", {}, spec()) == []
    assert violations("restricted", {}, spec()) == [
        'allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false)',
        'unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"])',
        'runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true)',
        'seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or '
        '"Localhost")',
    ]


def test_what_the_pod_says_holds_for_its_containers() -> None:
    context = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    by_pod = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert violations("restricted", {}, spec(context, securityContext=by_pod)) == []
    assert violations("restricted", {}, spec({**context, "runAsNonRoot": False}, securityContext=by_pod)) != []


@pytest.mark.parametrize(
    ("pod", "said"),
    [
        (spec({**SAFE, "runAsUser": 0}), 'runAsUser=0 (container "c" must not set runAsUser=0)'),
        (
            spec(SAFE, volumes=[{"name": "v", "nfs": {}}]),
            'restricted volume types (volume "v" uses restricted volume type "nfs")',
        ),
        (
            spec({**SAFE, "capabilities": {"drop": ["ALL"], "add": ["CHOWN", "NET_BIND_SERVICE"]}}),
            'unrestricted capabilities (container "c" must not include "CHOWN" in securityContext.capabilities.add)',
        ),
    ],
)
def test_restricted(pod: Object, said: str) -> None:
    assert violations("restricted", {}, pod) == [said]
