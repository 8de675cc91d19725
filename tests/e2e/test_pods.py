"""What a pod's manifest promises, seen from inside of it and from kubectl."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.manifests import BUSYBOX, config_map, container, pod, secret, shell

pytestmark = pytest.mark.e2e
Kubectl = Any
Eventually = Callable[..., Any]


def ready(kubectl: Kubectl, *names: str, timeout_s: int = 30) -> None:
    kubectl("wait", "--for=condition=Ready", f"--timeout={timeout_s}s", *(f"pod/{name}" for name in names))


def container_status(kubectl: Kubectl, name: str, index: int = 0) -> dict[str, Any]:
    statuses = kubectl.get("pod", name)["status"].get("containerStatuses") or [{}]
    found: dict[str, Any] = statuses[index]
    return found


def reasons(kubectl: Kubectl, name: str) -> dict[str, str]:
    """Event reasons about a pod, with the last message of each."""
    events = kubectl.get("events", "--field-selector", f"involvedObject.name={name}")["items"]
    return {event["reason"]: event["message"] for event in events}


def test_init_containers_run_in_order_before_the_others(kubectl: Kubectl) -> None:
    mounts = [{"name": "shared", "mountPath": "/shared"}]
    kubectl.apply(
        pod(
            "steps",
            shell("cat /shared/log; trap 'exit 0' TERM; sleep 1d & wait", "main", volumeMounts=mounts),
            shell("cat /shared/log >&2; trap 'exit 0' TERM; sleep 1d & wait", "second", volumeMounts=mounts),
            initContainers=[
                shell("echo one >> /shared/log", "first", volumeMounts=mounts),
                shell("echo two >> /shared/log", "then", volumeMounts=mounts),
            ],
            volumes=[{"name": "shared", "emptyDir": {}}],
        )
    )
    ready(kubectl, "steps")
    assert kubectl("logs", "steps", "-c", "main").split() == ["one", "two"]
    assert kubectl("logs", "steps", "-c", "second").split() == ["one", "two"]
    status = kubectl.get("pod", "steps")["status"]
    assert [each["state"]["terminated"]["reason"] for each in status["initContainerStatuses"]] == ["Completed"] * 2
    assert "2/2" in kubectl("get", "pod", "steps")


def test_a_failing_init_container_holds_the_pod_back(kubectl: Kubectl, eventually: Eventually) -> None:
    kubectl.apply(pod("held", initContainers=[shell("exit 4", "broken")]))
    eventually(lambda: "Init:Error" in (text := kubectl("get", "pod", "held")) or "Init:CrashLoopBackOff" in text)
    assert "started" not in container_status(kubectl, "held") or not container_status(kubectl, "held")["started"]
    kubectl.apply(pod("given-up", initContainers=[shell("exit 4", "broken")], restartPolicy="Never"))
    eventually(lambda: kubectl.get("pod", "given-up")["status"]["phase"] == "Failed")
    assert "Init:Error" in kubectl("get", "pod", "given-up")


def test_a_sidecar_runs_beside_and_does_not_keep_the_pod(kubectl: Kubectl, eventually: Eventually) -> None:
    sidecar = container("proxy", restartPolicy="Always")
    kubectl.apply(pod("with-sidecar", shell("sleep 1"), initContainers=[sidecar], restartPolicy="Never"))
    eventually(lambda: kubectl.get("pod", "with-sidecar")["status"]["phase"] == "Succeeded")


def test_environment_from_everywhere(kubectl: Kubectl) -> None:
    env = [
        {"name": "PLAIN", "value": "text"},
        {"name": "EXPANDED", "value": "$(PLAIN)-$(FROM_KEY) $$(PLAIN)"},
        {"name": "FROM_KEY", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "one"}}},
        {"name": "FROM_SECRET", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "password"}}},
        {"name": "ABSENT", "valueFrom": {"secretKeyRef": {"name": "none", "key": "x", "optional": True}}},
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "HOST_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
        {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
        {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
    ]
    sources = [{"configMapRef": {"name": "settings"}}, {"secretRef": {"name": "keys"}, "prefix": "SECRET_"}]
    env = env[:1] + env[2:3] + env[1:2] + env[3:]
    limits = {"limits": {"cpu": "250m", "memory": "64Mi"}}
    kubectl.apply(
        config_map("settings", one="1", two="2"),
        secret("keys", password="open sesame"),
        pod("env", container(env=env, envFrom=sources, resources=limits)),
    )
    ready(kubectl, "env")
    seen = dict(line.split("=", 1) for line in kubectl("exec", "env", "--", "env").splitlines() if "=" in line)
    status = kubectl.get("pod", "env")
    assert {key: seen.get(key) for key in ("PLAIN", "FROM_KEY", "EXPANDED", "FROM_SECRET", "ABSENT")} == {
        "PLAIN": "text",
        "FROM_KEY": "1",
        "EXPANDED": "text-1 $(PLAIN)",
        "FROM_SECRET": "open sesame",
        "ABSENT": None,
    }
    assert (seen["one"], seen["two"], seen["SECRET_password"]) == ("1", "2", "open sesame")
    assert (seen["POD_NAME"], seen["LABEL"], seen["CPU"], seen["MEMORY"]) == ("env", "env", "250", "64")
    assert seen["POD_IP"] == status["status"]["podIP"]
    assert seen["HOST"] == status["spec"]["nodeName"]
    assert seen["HOST_IP"] == status["status"]["hostIP"]
    assert seen["KUBERNETES_SERVICE_HOST"] == "10.96.0.1"
    assert status["status"]["qosClass"] == "Guaranteed"


def test_a_missing_config_map_is_waited_for(kubectl: Kubectl, eventually: Eventually) -> None:
    env = [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "a"}}}]
    kubectl.apply(pod("waiting", container(env=env)))
    eventually(lambda: "CreateContainerConfigError" in kubectl("get", "pod", "waiting"))
    assert 'configmap "late" not found' in reasons(kubectl, "waiting")["Failed"]
    kubectl.apply(config_map("late", a="there"))
    ready(kubectl, "waiting")
    assert kubectl("exec", "waiting", "--", "sh", "-c", "echo $A").strip() == "there"


def test_volumes_of_every_kind_and_their_updates(kubectl: Kubectl, eventually: Eventually) -> None:
    volumes = [
        {"name": "config", "configMap": {"name": "files", "items": [{"key": "a", "path": "sub/a.txt", "mode": 0o400}]}},
        {"name": "all", "configMap": {"name": "files"}},
        {"name": "secret", "secret": {"secretName": "keys", "defaultMode": 0o440}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
        {
            "name": "down",
            "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]},
        },
        {
            "name": "projected",
            "projected": {
                "sources": [
                    {"configMap": {"name": "files", "items": [{"key": "a", "path": "from-config"}]}},
                    {"secret": {"name": "keys", "items": [{"key": "password", "path": "from-secret"}]}},
                    {"serviceAccountToken": {"path": "token", "audience": "someone", "expirationSeconds": 600}},
                    {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
                ]
            },
        },
    ]
    names = [str(each["name"]) for each in volumes]
    mounts: list[dict[str, Any]] = [{"name": name, "mountPath": f"/v/{name}"} for name in names]
    mounts.append({"name": "all", "mountPath": "/etc/one.conf", "subPath": "b", "readOnly": True})
    kubectl.apply(
        config_map("files", a="first", b="second"),
        secret("keys", password="hush"),
        pod("volumes", container(volumeMounts=mounts), volumes=volumes),
    )
    ready(kubectl, "volumes")

    def read(path: str) -> str:
        return str(kubectl("exec", "volumes", "--", "cat", path))

    assert read("/v/config/sub/a.txt") == "first"
    assert read("/etc/one.conf") == "second"
    assert read("/v/secret/password") == "hush"
    assert read("/v/projected/from-config") + read("/v/projected/from-secret") == "firsthush"
    assert read("/v/projected/name") == "volumes"
    assert read("/v/projected/token").count(".") == 2
    assert 'app="volumes"' in read("/v/down/labels")
    assert "tmpfs" in kubectl("exec", "volumes", "--", "grep", " /v/memory ", "/proc/mounts")
    assert kubectl("exec", "volumes", "--", "stat", "-L", "-c", "%a", "/v/config/sub/a.txt").strip() == "400"
    refused = kubectl.attempt("exec", "volumes", "--", "touch", "/v/all/x")
    assert "Read-only file system" in refused.stderr
    kubectl.apply(config_map("files", a="changed", b="second"), secret("keys", password="new"))
    kubectl("label", "pod", "volumes", "later=yes")
    eventually(lambda: read("/v/all/a") == "changed" and read("/v/secret/password") == "new", 20)
    eventually(lambda: 'later="yes"' in read("/v/down/labels"), 20)


def test_probes_decide_about_readiness_and_restarts(kubectl: Kubectl, eventually: Eventually) -> None:
    quick = {"periodSeconds": 1, "failureThreshold": 1}
    kubectl.apply(
        pod("gate", container(readinessProbe={"exec": {"command": ["cat", "/run-me"]}, **quick})),
        pod(
            "web",
            shell(
                "mkdir /w; echo ok > /w/health; httpd -f -p 8080 -h /w",
                ports=[{"name": "http", "containerPort": 8080}],
                livenessProbe={"httpGet": {"path": "/health", "port": "http"}, **quick},
                startupProbe={"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 20},
            ),
        ),
    )
    ready(kubectl, "web")
    gate = kubectl.get("pod", "gate")
    eventually(lambda: "Readiness probe failed" in reasons(kubectl, "gate").get("Unhealthy", ""))
    assert next(each for each in gate["status"]["conditions"] if each["type"] == "Ready")["status"] == "False"
    kubectl("exec", "gate", "--", "touch", "/run-me")
    ready(kubectl, "gate")
    kubectl("exec", "web", "--", "rm", "/w/health")
    eventually(lambda: container_status(kubectl, "web").get("restartCount") == 1, 20)
    assert "Liveness probe failed: HTTP probe failed with statuscode: 404" in reasons(kubectl, "web")["Unhealthy"]
    assert "will be restarted" in reasons(kubectl, "web")["Killing"]
    ready(kubectl, "web")


def test_a_failing_startup_probe_restarts_the_container(kubectl: Kubectl, eventually: Eventually) -> None:
    probe = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 2}
    kubectl.apply(pod("slow", container(startupProbe=probe)))
    eventually(lambda: container_status(kubectl, "slow").get("restartCount", 0) >= 1)
    assert "Startup probe failed" in reasons(kubectl, "slow")["Unhealthy"]


def test_restart_policies_and_exit_codes(kubectl: Kubectl, eventually: Eventually) -> None:
    kubectl.apply(
        pod("never", shell("exit 3"), restartPolicy="Never"),
        pod("done", shell("exit 0"), restartPolicy="OnFailure"),
        pod("again", shell("echo attempt; exit 5"), restartPolicy="OnFailure"),
        pod("crash", shell("exit 1")),
    )
    eventually(lambda: kubectl.get("pod", "never")["status"]["phase"] == "Failed")
    assert container_status(kubectl, "never")["state"]["terminated"]["exitCode"] == 3
    assert container_status(kubectl, "never")["state"]["terminated"]["reason"] == "Error"
    eventually(lambda: kubectl.get("pod", "done")["status"]["phase"] == "Succeeded")
    assert "Completed" in kubectl("get", "pod", "done")
    eventually(lambda: "CrashLoopBackOff" in kubectl("get", "pod", "crash"))
    status = eventually(lambda: (s := container_status(kubectl, "again")).get("restartCount", 0) >= 1 and s)
    assert status["lastState"]["terminated"]["exitCode"] == 5
    eventually(lambda: "attempt" in kubectl("logs", "again", "--previous"))
    assert "Back-off restarting failed container" in reasons(kubectl, "crash")["BackOff"]


def test_memory_limit_kills_and_says_so(kubectl: Kubectl, eventually: Eventually) -> None:
    greedy = shell("tail /dev/zero", resources={"limits": {"memory": "16Mi"}})
    kubectl.apply(pod("greedy", greedy, restartPolicy="Never"))
    eventually(lambda: kubectl.get("pod", "greedy")["status"]["phase"] == "Failed")
    ended = container_status(kubectl, "greedy")["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)
    assert "OOMKilled" in kubectl("get", "pod", "greedy")


def test_termination_messages(kubectl: Kubectl, eventually: Eventually) -> None:
    kubectl.apply(
        pod("told", shell("echo why > /dev/termination-log; exit 1"), restartPolicy="Never"),
        pod(
            "logged",
            shell("echo last words; exit 1", terminationMessagePolicy="FallbackToLogsOnError"),
            restartPolicy="Never",
        ),
    )
    for name, words in (("told", "why\n"), ("logged", "last words\n")):
        eventually(lambda name=name: kubectl.get("pod", name)["status"]["phase"] == "Failed")
        assert container_status(kubectl, name)["state"]["terminated"]["message"] == words


def test_a_deadline_ends_a_pod(kubectl: Kubectl, eventually: Eventually) -> None:
    kubectl.apply(pod("hurried", activeDeadlineSeconds=1))
    eventually(lambda: kubectl.get("pod", "hurried")["status"].get("reason") == "DeadlineExceeded")
    assert kubectl.get("pod", "hurried")["status"]["phase"] == "Failed"


def test_graceful_deletion_runs_pre_stop_then_sigterm(kubectl: Kubectl, eventually: Eventually) -> None:
    script = "trap 'echo got TERM; exit 0' TERM; echo up; while true; do sleep 0.1; done"
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo pre-stop > /proc/1/fd/1; sleep 1"]}}}
    kubectl.apply(pod("polite", shell(script, lifecycle=hook), terminationGracePeriodSeconds=20))
    ready(kubectl, "polite")
    kubectl("delete", "pod", "polite", "--wait=false")
    going = kubectl.get("pod", "polite")
    assert going["metadata"]["deletionGracePeriodSeconds"] == 20
    assert "Terminating" in kubectl("get", "pod", "polite")
    log = kubectl("logs", "-f", "polite", timeout_s=30).split("\n")
    assert [line for line in log if line] == ["up", "pre-stop", "got TERM"]
    eventually(lambda: kubectl.attempt("get", "pod", "polite").returncode != 0)


def test_a_deaf_container_is_killed_when_its_grace_is_over(kubectl: Kubectl) -> None:
    kubectl.apply(pod("deaf", shell("trap '' TERM; while true; do sleep 1; done"), terminationGracePeriodSeconds=2))
    ready(kubectl, "deaf")
    kubectl("delete", "pod", "deaf", timeout_s=10)
    assert kubectl.attempt("get", "pod", "deaf").returncode != 0


def test_force_deletion_does_not_wait(kubectl: Kubectl) -> None:
    kubectl.apply(pod("stuck", shell("trap '' TERM; while true; do sleep 1; done"), terminationGracePeriodSeconds=25))
    ready(kubectl, "stuck")
    kubectl("delete", "pod", "stuck", "--force", "--grace-period=0", timeout_s=10)
    assert kubectl.attempt("get", "pod", "stuck").returncode != 0


def test_security_context(kubectl: Kubectl, eventually: Eventually) -> None:
    locked = container(
        securityContext={
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }
    )
    kubectl.apply(
        pod("user", locked, securityContext={"runAsUser": 1234, "runAsGroup": 2345, "fsGroup": 3456}),
        pod("not-root", container(securityContext={"runAsNonRoot": True})),
    )
    ready(kubectl, "user")
    assert kubectl("exec", "user", "--", "id").strip().replace(" ", ",").startswith("uid=1234,gid=2345")
    assert "3456" in kubectl("exec", "user", "--", "id", "-G")
    assert "Read-only file system" in kubectl.attempt("exec", "user", "--", "touch", "/x").stderr
    status = kubectl("exec", "user", "--", "cat", "/proc/1/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(fields["CapEff"], 16) == 0
    assert fields["NoNewPrivs"].strip() == "1"
    eventually(lambda: "CreateContainerConfigError" in kubectl("get", "pod", "not-root"))
    assert "runAsNonRoot" in reasons(kubectl, "not-root")["Failed"]


def test_host_network_shares_the_hosts_address(kubectl: Kubectl) -> None:
    kubectl.apply(pod("on-host", hostNetwork=True))
    ready(kubectl, "on-host")
    status = kubectl.get("pod", "on-host")["status"]
    assert status["podIP"] == status["hostIP"]
    assert status["hostIP"] in kubectl("exec", "on-host", "--", "ip", "-4", "addr")


def test_names_inside_a_pod(kubectl: Kubectl, namespace: str) -> None:
    kubectl.apply(pod("named", hostname="given", hostAliases=[{"ip": "10.1.2.3", "hostnames": ["alias.test"]}]))
    ready(kubectl, "named")
    assert kubectl("exec", "named", "--", "hostname").strip() == "given"
    assert "10.1.2.3\talias.test" in kubectl("exec", "named", "--", "cat", "/etc/hosts")
    resolver = kubectl("exec", "named", "--", "cat", "/etc/resolv.conf")
    assert f"search {namespace}.svc.cluster.local svc.cluster.local cluster.local" in resolver
    assert "nameserver 10.96.0.10" in resolver
    assert "ndots:5" in resolver


def test_missing_images_are_told_with_cause(kubectl: Kubectl, eventually: Eventually) -> None:
    kubectl.apply(
        pod("absent", container(image="docker.io/library/no-such-image:1")),
        pod("never-pulled", container(image="docker.io/library/no-such-image:1", imagePullPolicy="Never")),
        pod("unreadable", container(image="Not//An:Image:")),
    )
    eventually(lambda: kubectl("get", "pod", "absent").split()[7] in ("ErrImagePull", "ImagePullBackOff"))
    eventually(lambda: "Failed to pull image" in json.dumps(kubectl.get("events")))
    eventually(lambda: "ErrImageNeverPull" in kubectl("get", "pod", "never-pulled"))
    eventually(lambda: "InvalidImageName" in kubectl("get", "pod", "unreadable"))
    eventually(lambda: "ImagePullBackOff" in kubectl("get", "pod", "absent"), 60)
    kubectl("set", "image", "pod/absent", "c=busybox")
    ready(kubectl, "absent")


def test_a_pod_speaks_to_the_api_with_its_own_rights(kubectl: Kubectl, namespace: str, eventually: Eventually) -> None:
    kubectl("create", "serviceaccount", "reader")
    kubectl("create", "role", "reader", "--verb=get,list", "--resource=pods")
    kubectl("create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={namespace}:reader")
    binary = Path(shutil.which("kubectl") or "/usr/bin/kubectl").resolve()
    base = "/var/run/secrets/kubernetes.io/serviceaccount"
    call = f"/k/{binary.name} --server=https://kubernetes.default --token=$(cat {base}/token)"
    call += f" --certificate-authority={base}/ca.crt -n $(cat {base}/namespace)"
    script = f"{call} get pods -o name; /k/{binary.name} get secrets; echo $?"
    kubectl.apply(
        pod(
            "client",
            shell(script, volumeMounts=[{"name": "k", "mountPath": "/k"}]),
            serviceAccountName="reader",
            restartPolicy="Never",
            # busybox has no TLS worth the name; kubectl is static, and finds the API from the pod's environment.
            volumes=[{"name": "k", "hostPath": {"path": str(binary.parent), "type": "Directory"}}],
        )
    )
    eventually(lambda: kubectl.get("pod", "client")["status"]["phase"] in ("Succeeded", "Failed"))
    said = kubectl("logs", "client")
    assert said.startswith("pod/client\n")
    assert f'User "system:serviceaccount:{namespace}:reader" cannot list resource "secrets"' in said
    assert said.endswith("1\n")


def test_no_token_is_mounted_when_not_wanted(kubectl: Kubectl) -> None:
    kubectl.apply(pod("tokenless", automountServiceAccountToken=False))
    ready(kubectl, "tokenless")
    assert kubectl.attempt("exec", "tokenless", "--", "ls", "/var/run/secrets").returncode != 0


def test_an_image_is_a_volume(kubectl: Kubectl) -> None:
    art = {"name": "art", "image": {"reference": BUSYBOX, "pullPolicy": "IfNotPresent"}}
    mounts = [{"name": "art", "mountPath": "/art"}, {"name": "art", "mountPath": "/tools", "subPath": "bin"}]
    kubectl.apply(pod("gallery", container(volumeMounts=mounts), volumes=[art]))
    ready(kubectl, "gallery")
    assert "busybox" in kubectl("exec", "gallery", "--", "ls", "/art/bin")
    assert "busybox" in kubectl("exec", "gallery", "--", "ls", "/tools")
    assert "Read-only" in kubectl.attempt("exec", "gallery", "--", "touch", "/art/new").stderr


def test_a_resize_is_over_when_no_condition_speaks_of_it(kubectl: Kubectl, eventually: Eventually) -> None:
    def amounts(cpu: str, memory: str) -> dict[str, Any]:
        both = {"cpu": cpu, "memory": memory}
        return {"limits": both, "requests": both}

    kubectl.apply(pod("growing", container(resources=amounts("29m", "32Mi"))))
    ready(kubectl, "growing")
    for wanted in (amounts("36m", "48Mi"), amounts("29m", "32Mi")):
        patch = {"spec": {"containers": [{"name": "c", "resources": wanted}]}}
        kubectl("patch", "pod", "growing", "--subresource=resize", "-p", json.dumps(patch))
        eventually(lambda wanted=wanted: container_status(kubectl, "growing")["resources"] == wanted)
        conditions = {each["type"] for each in kubectl.get("pod", "growing")["status"]["conditions"]}
        assert "PodResizeInProgress" not in conditions
    assert container_status(kubectl, "growing")["restartCount"] == 0


def test_a_runtime_class_decides_and_is_decided_about_early(kubectl: Kubectl, namespace: str) -> None:
    classes = {"kind": "RuntimeClass", "apiVersion": "node.k8s.io/v1", "metadata": {"name": namespace}}
    kubectl.apply({**classes, "handler": "crun", "overhead": {"podFixed": {"cpu": "10m", "memory": "1Mi"}}})
    try:
        kubectl.apply(pod("plain", runtimeClassName=namespace))
        ready(kubectl, "plain")
        assert kubectl.get("pod", "plain")["spec"]["overhead"] == {"cpu": "10m", "memory": "1Mi"}
    finally:
        kubectl("delete", "runtimeclass", namespace)
    refused = kubectl.attempt(
        "run", "late", "--image=busybox", f'--overrides={{"spec":{{"runtimeClassName":"{namespace}"}}}}'
    )
    assert "Forbidden" in refused.stderr
    assert f'RuntimeClass "{namespace}" not found' in refused.stderr
