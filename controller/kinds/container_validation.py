"""Validation of containers: names, images, ports, environment, mounts, probes, resources. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from common.quantity import InvalidQuantity, Quantity
from controller.kinds import rules
from controller.kinds.kind import Object
from controller.kinds.rules import Errors, duplicate, forbidden, invalid, not_found, required

_PROTOCOLS: Final = ("SCTP", "TCP", "UDP")
_PULL_POLICIES: Final = ("Always", "IfNotPresent", "Never")
_MESSAGE_POLICIES: Final = ("FallbackToLogsOnError", "File")
_ACTIONS: Final = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")
_FIELDS: Final = frozenset(
    (
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    )
)
_STANDARD: Final = frozenset(("cpu", "memory", "ephemeral-storage", "storage"))


def containers(spec: Object, volumes: set[str], path: str) -> Errors:
    """All containers of a pod spec; ``volumes`` are the declared volume names."""
    errors: Errors = []
    seen: set[str] = set()
    if not spec.get("containers"):
        errors.append(required(f"{path}.containers"))
    for index, container in enumerate(spec.get("containers") or []):
        errors += _container(container, volumes, seen, f"{path}.containers[{index}]", init=False)
        if container.get("restartPolicy") and "restartPolicyRules" not in container:
            rules_path = f"{path}.containers[{index}].restartPolicy"
            errors += rules.one_of(rules_path, container["restartPolicy"], ("Always", "Never", "OnFailure"))
    for index, container in enumerate(spec.get("initContainers") or []):
        errors += _container(container, volumes, seen, f"{path}.initContainers[{index}]", init=True)
    for index, container in enumerate(spec.get("ephemeralContainers") or []):
        here = f"{path}.ephemeralContainers[{index}]"
        errors += _container(container, volumes, seen, here, init=True, ephemeral=True)
    errors += _host_ports(spec, path)
    return errors


def _container(
    container: Object, volumes: set[str], seen: set[str], path: str, *, init: bool, ephemeral: bool = False
) -> Errors:
    errors = rules.name(f"{path}.name", container.get("name"), rules.label_problems)
    if container.get("name") in seen:
        errors.append(duplicate(f"{path}.name", container["name"]))
    seen.add(container.get("name") or "")
    image = container.get("image") or ""
    if not image:
        errors.append(required(f"{path}.image"))
    elif image != image.strip():
        errors.append(invalid(f"{path}.image", image, "must not have leading or trailing whitespace"))
    errors += rules.one_of(f"{path}.imagePullPolicy", container.get("imagePullPolicy"), _PULL_POLICIES)
    errors += rules.one_of(
        f"{path}.terminationMessagePolicy", container.get("terminationMessagePolicy"), _MESSAGE_POLICIES
    )
    errors += _ports(container.get("ports") or [], f"{path}.ports")
    errors += _environment(container, path)
    errors += _mounts(container.get("volumeMounts") or [], volumes, f"{path}.volumeMounts")
    errors += resources(container.get("resources") or {}, f"{path}.resources")
    sidecar = init and container.get("restartPolicy") == "Always"
    for key in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = container.get(key)
        if probe is None:
            continue
        if ephemeral:
            errors.append(forbidden(f"{path}.{key}", "cannot be set for an Ephemeral Container"))
        elif init and not sidecar:
            errors.append(forbidden(f"{path}.{key}", "may not be set for init containers without restartPolicy=Always"))
        else:
            errors += _probe(probe, f"{path}.{key}", readiness=key == "readinessProbe")
    lifecycle = container.get("lifecycle") or {}
    if lifecycle and init and not sidecar:
        detail = "may not be set for init containers without restartPolicy=Always"
        errors.append(forbidden(f"{path}.lifecycle", detail))
    for key in ("postStart", "preStop"):
        if lifecycle.get(key) is not None:
            errors += _handler(lifecycle[key], f"{path}.lifecycle.{key}")
    return errors


def _ports(ports: list[Object], path: str) -> Errors:
    errors: Errors = []
    names: set[str] = set()
    for index, port in enumerate(ports):
        here, name = f"{path}[{index}]", port.get("name")
        if name:
            problems = rules.port_name_problems(name)
            errors += [invalid(f"{here}.name", name, text) for text in problems]
            if name in names and not problems:
                errors.append(duplicate(f"{here}.name", name))
            names.add(name)
        if not port.get("containerPort"):
            errors.append(required(f"{here}.containerPort"))
        else:
            errors += rules.port_number(f"{here}.containerPort", port["containerPort"])
        if port.get("hostPort"):
            errors += rules.port_number(f"{here}.hostPort", port["hostPort"])
        errors += rules.one_of(f"{here}.protocol", port.get("protocol"), _PROTOCOLS)
    return errors


def _host_ports(spec: Object, path: str) -> Errors:
    errors: Errors = []
    used: set[tuple[Any, ...]] = set()
    for index, container in enumerate(spec.get("containers") or []):
        for position, port in enumerate(container.get("ports") or []):
            if not port.get("hostPort"):
                continue
            here = f"{path}.containers[{index}].ports[{position}]"
            if spec.get("hostNetwork") and port["hostPort"] != port.get("containerPort"):
                detail = "must match `hostPort` when `hostNetwork` is true"
                errors.append(invalid(f"{here}.containerPort", port.get("containerPort"), detail))
            key = (port.get("protocol"), port.get("hostIP", ""), port["hostPort"])
            if key in used:
                errors.append(duplicate(f"{here}.hostPort", f"{key[0]}/{key[1]}/{key[2]}"))
            used.add(key)
    return errors


def _environment(container: Object, path: str) -> Errors:
    errors: Errors = []
    for index, env in enumerate(container.get("env") or []):
        here, name = f"{path}.env[{index}]", env.get("name") or ""
        if not name:
            errors.append(required(f"{here}.name"))
        else:
            errors += [invalid(f"{here}.name", name, text) for text in rules.env_name_problems(name)]
        source = env.get("valueFrom")
        if source is not None:
            errors += _env_source(source, f"{here}.valueFrom", value=env.get("value") or "")
    for index, source in enumerate(container.get("envFrom") or []):
        here = f"{path}.envFrom[{index}]"
        kinds = [key for key in ("configMapRef", "secretRef") if source.get(key) is not None]
        if len(kinds) != 1:
            detail = "must specify one of: `configMapRef` or `secretRef`"
            errors.append(
                invalid(here, "", detail if not kinds else "may not have more than one field specified at a time")
            )
        for key in kinds:
            if not source[key].get("name"):
                errors.append(required(f"{here}.{key}.name"))
    return errors


def _env_source(source: Mapping[str, Any], path: str, *, value: str) -> Errors:
    kinds = [key for key, found in source.items() if found is not None]
    if not kinds:
        detail = (
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        )
        return [invalid(path, "", detail)]
    errors: Errors = []
    if value:
        errors.append(invalid(path, "", "may not be specified when `value` is not empty"))
    if len(kinds) > 1:
        errors.append(invalid(path, "", "may not have more than one field specified at a time"))
    field = source.get("fieldRef")
    if field is not None:
        errors += _field_ref(field.get("fieldPath") or "", f"{path}.fieldRef.fieldPath")
    for key in ("configMapKeyRef", "secretKeyRef"):
        reference = source.get(key)
        if reference is not None:
            errors += [] if reference.get("name") else [required(f"{path}.{key}.name")]
            if not reference.get("key"):
                errors.append(required(f"{path}.{key}.key"))
            else:
                problems = rules.config_key_problems(reference["key"])
                errors += [invalid(f"{path}.{key}.key", reference["key"], text) for text in problems]
    resource = source.get("resourceFieldRef")
    if resource is not None and not resource.get("resource"):
        errors.append(required(f"{path}.resourceFieldRef.resource"))
    return errors


def _field_ref(field: str, path: str) -> Errors:
    if not field:
        return [required(path)]
    for prefix in ("metadata.labels['", "metadata.annotations['"):
        if field.startswith(prefix) and field.endswith("']"):
            key = field[len(prefix) : -2]
            return [invalid(path, key, text) for text in rules.qualified_problems(key.lower())]
    return [] if field in _FIELDS else [rules.not_supported(path, field, _FIELDS)]


def _mounts(mounts: list[Object], volumes: set[str], path: str) -> Errors:
    errors: Errors = []
    points: set[str] = set()
    for index, mount in enumerate(mounts):
        here = f"{path}[{index}]"
        if not mount.get("name"):
            errors.append(required(f"{here}.name"))
        elif mount["name"] not in volumes:
            errors.append(not_found(f"{here}.name", mount["name"]))
        point = mount.get("mountPath") or ""
        if not point:
            errors.append(required(f"{here}.mountPath"))
        if point in points:
            errors.append(invalid(f"{here}.mountPath", point, "must be unique"))
        points.add(point)
        sub = mount.get("subPath") or ""
        if sub.startswith("/"):
            errors.append(invalid(f"{here}.subPath", sub, "must be a relative path"))
        if ".." in sub.split("/"):
            errors.append(invalid(f"{here}.subPath", sub, "must not contain '..'"))
        if sub and mount.get("subPathExpr"):
            errors.append(
                invalid(f"{here}.subPathExpr", mount["subPathExpr"], "subPathExpr and subPath are mutually exclusive")
            )
    return errors


def _probe(probe: Mapping[str, Any], path: str, *, readiness: bool) -> Errors:
    errors = _handler(probe, path)
    for key in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        errors += rules.non_negative(f"{path}.{key}", probe.get(key))
    grace = probe.get("terminationGracePeriodSeconds")
    if readiness and grace is not None:
        errors.append(invalid(f"{path}.terminationGracePeriodSeconds", grace, "must not be set for readinessProbes"))
    elif grace is not None and grace <= 0:
        errors.append(invalid(f"{path}.terminationGracePeriodSeconds", grace, "must be greater than 0"))
    if not readiness and probe.get("successThreshold") != 1:
        errors.append(invalid(f"{path}.successThreshold", probe.get("successThreshold"), "must be 1"))
    return errors


def _handler(handler: Mapping[str, Any], path: str) -> Errors:
    kinds = [key for key in _ACTIONS if handler.get(key) is not None]
    if not kinds:
        return [required(path, "must specify a handler type")]
    errors = [forbidden(f"{path}.{key}", "may not specify more than 1 handler type") for key in kinds[1:]]
    action: Mapping[str, Any] = handler[kinds[0]]
    here = f"{path}.{kinds[0]}"
    match kinds[0]:
        case "exec":
            errors += [] if action.get("command") else [required(f"{here}.command")]
        case "httpGet":
            errors += [] if action.get("path") else [required(f"{here}.path")]
            errors += rules.port_number_or_name(f"{here}.port", action.get("port", 0))
            errors += rules.one_of(f"{here}.scheme", action.get("scheme"), ("HTTP", "HTTPS"))
            for header in action.get("httpHeaders") or []:
                if not header.get("name"):
                    errors.append(required(f"{here}.httpHeaders"))
        case "tcpSocket":
            errors += rules.port_number_or_name(f"{here}.port", action.get("port", 0))
        case "grpc":
            errors += rules.port_number(f"{here}.port", action.get("port", 0))
        case _:
            pass
    return errors


def resources(found: Mapping[str, Any], path: str) -> Errors:
    """``ResourceRequirements``: known names, quantities, requests not above limits."""
    errors: Errors = []
    limits: Mapping[str, Any] = found.get("limits") or {}
    for key in ("limits", "requests"):
        for name, amount in (found.get(key) or {}).items():
            here = f"{path}.{key}[{name}]"
            errors += _resource_name(here, name)
            problems = rules.quantity(here, amount)
            errors += problems
            if key == "requests" and not problems and name in limits:
                errors += _not_above(amount, limits[name], name, f"{path}.requests")
    return errors


def _resource_name(path: str, name: str) -> Errors:
    errors = [invalid(path, name, text) for text in rules.qualified_problems(name)]
    if not errors and "/" not in name and name not in _STANDARD and not name.startswith("hugepages-"):
        errors.append(invalid(path, name, "must be a standard resource type or fully qualified"))
        errors.append(invalid(path, name, "must be a standard resource for containers"))
    return errors


def _not_above(request: Any, limit: Any, name: str, path: str) -> Errors:
    try:
        above = Quantity.parse(request) > Quantity.parse(limit)
    except InvalidQuantity:
        return []
    return [invalid(path, request, f"must be less than or equal to {name} limit of {limit}")] if above else []
