"""Defaults of pods and pod templates, exactly upstream's ``SetDefaults_*`` for core/v1. Pure and idempotent."""

from typing import Any, Final

from controller.kinds.kind import Object

_PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")
_MODE: Final = 0o644


def default_pod(pod: Object) -> None:
    """Defaults of a whole pod."""
    default_pod_spec(pod.setdefault("spec", {}))


def default_template(template: Object) -> None:
    """Defaults of a ``PodTemplateSpec``."""
    default_pod_spec(template.setdefault("spec", {}))


def default_pod_spec(spec: Object) -> None:
    """Defaults of a ``PodSpec``."""
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    if _is_negative(spec["terminationGracePeriodSeconds"]):
        spec["terminationGracePeriodSeconds"] = 1  # upstream once let it in, and gives it this meaning since
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    if spec.get("hostNetwork"):
        _default_host_ports(spec)
    for container in _containers(spec):
        default_container(container)
    for volume in spec.get("volumes") or []:
        default_volume(volume)
    for constraint in spec.get("topologySpreadConstraints") or []:
        constraint.setdefault("whenUnsatisfiable", "DoNotSchedule")
    if spec.get("serviceAccountName"):
        spec["serviceAccount"] = spec["serviceAccountName"]
    elif spec.get("serviceAccount"):
        spec["serviceAccountName"] = spec["serviceAccount"]


def _is_negative(value: Any) -> bool:
    return isinstance(value, int) and value < 0


def default_pod_only(pod: Object) -> None:
    """What upstream sets on pods but not on templates."""
    spec = pod.setdefault("spec", {})
    spec.setdefault("enableServiceLinks", True)
    for container in _containers(spec):
        _requests_from_limits(container)


def _containers(spec: Object) -> list[Object]:
    found: list[Object] = []
    for key in ("initContainers", "containers", "ephemeralContainers"):
        found += spec.get(key) or []
    return found


def _default_host_ports(spec: Object) -> None:
    for key in ("initContainers", "containers"):
        for container in spec.get(key) or []:
            for port in container.get("ports") or []:
                if not port.get("hostPort") and port.get("containerPort"):
                    port["hostPort"] = port["containerPort"]


def _requests_from_limits(container: Object) -> None:
    resources = container.get("resources") or {}
    limits = resources.get("limits")
    if not limits:
        return
    requests = resources.setdefault("requests", {})
    for name, amount in limits.items():
        requests.setdefault(name, amount)


def image_pull_policy(image: str) -> str:
    """``Always`` for ``:latest`` or no tag and no digest, else ``IfNotPresent``."""
    if "@" in image:
        return "IfNotPresent"
    tag = image.rpartition("/")[2].partition(":")[2]
    return "Always" if tag in ("", "latest") else "IfNotPresent"


def default_container(container: Object) -> None:
    """Defaults of one container of any sort."""
    container.setdefault("resources", {})
    if not container.get("imagePullPolicy"):
        container["imagePullPolicy"] = image_pull_policy(container.get("image") or "")
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    for port in container.get("ports") or []:
        port.setdefault("protocol", "TCP")
    for env in container.get("env") or []:
        reference = (env.get("valueFrom") or {}).get("fieldRef")
        if reference is not None:
            reference.setdefault("apiVersion", "v1")
        resource = (env.get("valueFrom") or {}).get("resourceFieldRef")
        if resource is not None:
            resource.setdefault("divisor", "0")
    for key in _PROBES:
        if container.get(key) is not None:
            default_probe(container[key])
    for handler in (container.get("lifecycle") or {}).values():
        if isinstance(handler, dict):
            _default_action(handler)


def default_probe(probe: Object) -> None:
    """Defaults of a probe."""
    probe["timeoutSeconds"] = probe.get("timeoutSeconds") or 1
    probe["periodSeconds"] = probe.get("periodSeconds") or 10
    probe["successThreshold"] = probe.get("successThreshold") or 1
    probe["failureThreshold"] = probe.get("failureThreshold") or 3
    _default_action(probe)
    if probe.get("grpc") is not None:
        probe["grpc"].setdefault("service", "")


def _default_action(handler: Object) -> None:
    http = handler.get("httpGet")
    if http is not None:
        http["path"] = http.get("path") or "/"
        http["scheme"] = http.get("scheme") or "HTTP"


def default_volume(volume: Object) -> None:
    """Defaults of a volume; one without a source is an emptyDir."""
    if not any(key != "name" for key in volume):
        volume["emptyDir"] = {}
    for key in ("configMap", "secret", "downwardAPI", "projected"):
        if volume.get(key) is not None:
            volume[key].setdefault("defaultMode", _MODE)
    for source in (volume.get("projected") or {}).get("sources") or []:
        token = source.get("serviceAccountToken")
        if token is not None:
            token.setdefault("expirationSeconds", 3600)
        _default_downward(source.get("downwardAPI"))
    _default_downward(volume.get("downwardAPI"))
    if volume.get("hostPath") is not None:
        volume["hostPath"].setdefault("type", "")
    if volume.get("iscsi") is not None:
        volume["iscsi"].setdefault("iscsiInterface", "default")
    if volume.get("image") is not None and not volume["image"].get("pullPolicy"):
        volume["image"]["pullPolicy"] = image_pull_policy(volume["image"].get("reference") or "")
    claim = (volume.get("ephemeral") or {}).get("volumeClaimTemplate")
    if claim is not None:
        claim.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")


def _default_downward(source: dict[str, Any] | None) -> None:
    for item in (source or {}).get("items") or []:
        if item.get("fieldRef") is not None:
            item["fieldRef"].setdefault("apiVersion", "v1")
        if item.get("resourceFieldRef") is not None:
            item["resourceFieldRef"].setdefault("divisor", "0")
