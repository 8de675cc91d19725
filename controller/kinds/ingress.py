"""Ingresses and their classes: defaults, validation, columns. Nothing serves them yet.

Spec: kube ``pkg/apis/networking``, ``v1/defaults.go`` and ``validation``.
"""

import ipaddress
from typing import Any, Final

from controller.kinds import rules
from controller.kinds.columns import AGE, NONE, at, computed, dig
from controller.kinds.kind import Kind, Object
from controller.kinds.rules import Errors, invalid, required

_PATH_TYPES: Final = ("Exact", "ImplementationSpecific", "Prefix")


def _prepare_create(ingress: Object) -> None:
    ingress["status"] = {"loadBalancer": {}}


def _validate(ingress: Object) -> Errors:
    spec = ingress.get("spec") or {}
    errors: Errors = []
    if spec.get("defaultBackend") is None and not spec.get("rules"):
        errors.append(invalid("spec", "", "either `defaultBackend` or `rules` must be specified"))
    if spec.get("defaultBackend") is not None:
        errors += _backend(spec["defaultBackend"], "spec.defaultBackend")
    for index, rule in enumerate(spec.get("rules") or []):
        errors += _rule(rule, f"spec.rules[{index}]")
    for index, tls in enumerate(spec.get("tls") or []):
        for position, host in enumerate(tls.get("hosts") or []):
            errors += _host(host, f"spec.tls[{index}].hosts[{position}]")
    errors += rules.name("spec.ingressClassName", spec.get("ingressClassName"), rules.subdomain_problems, need=False)
    return errors


def _rule(rule: Object, path: str) -> Errors:
    errors = _host(rule["host"], f"{path}.host") if rule.get("host") else []
    http = rule.get("http")
    if http is None:
        return errors
    if not http.get("paths"):
        errors.append(required(f"{path}.http.paths"))
    for index, each in enumerate(http.get("paths") or []):
        here, kind, route = f"{path}.http.paths[{index}]", each.get("pathType"), str(each.get("path") or "")
        if kind is None:
            errors.append(required(f"{here}.pathType", "pathType must be specified"))
        else:
            errors += rules.one_of(f"{here}.pathType", kind, _PATH_TYPES)
        if not route.startswith("/") and (route or kind != "ImplementationSpecific"):
            errors.append(invalid(f"{here}.path", route, "must be an absolute path"))
        if kind in ("Exact", "Prefix"):
            bad = next((part for part in ("//", "/./", "/../", "%2f", "%2F") if part in route), "")
            if bad:
                errors.append(invalid(f"{here}.path", route, f"must not contain '{bad}'"))
        errors += _backend(each.get("backend") or {}, f"{here}.backend")
    return errors


def _host(host: str, path: str) -> Errors:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        bare = host.removeprefix("*.")
        return [invalid(path, host, text) for text in rules.subdomain_problems(bare)]
    return [invalid(path, host, "must be a DNS name, not an IP address")]


def _backend(backend: Object, path: str) -> Errors:
    service, resource = backend.get("service"), backend.get("resource")
    if service is not None and resource is not None:
        return [invalid(path, "", "cannot set both resource and service backends")]
    if resource is not None:
        return [required(f"{path}.resource.{key}") for key in ("kind", "name") if not resource.get(key)]
    if service is None:
        return [required(path, "resource or service backend is required")]
    errors = rules.name(f"{path}.service.name", service.get("name"), rules.label_1035_problems)
    port = service.get("port") or {}
    if port.get("name") and port.get("number"):
        errors.append(invalid(path, "", "cannot set both port name & port number"))
    elif port.get("name"):
        errors += [
            invalid(f"{path}.service.port.name", port["name"], t) for t in rules.port_name_problems(port["name"])
        ]
    elif port.get("number"):
        errors += rules.port_number(f"{path}.service.port.number", port["number"])
    else:
        errors.append(required(path, "port name or number is required"))
    return errors


def _default_class(found: Object) -> None:
    parameters = dig(found, "spec.parameters")
    if isinstance(parameters, dict):
        parameters["scope"] = parameters.get("scope") or "Cluster"


def _validate_class(found: Object) -> Errors:
    errors = [] if dig(found, "spec.controller") else [required("spec.controller")]
    parameters = dig(found, "spec.parameters")
    if parameters is None:
        return errors
    here, scope = "spec.parameters", parameters.get("scope")
    errors += [required(f"{here}.{key}") for key in ("kind", "name") if not parameters.get(key)]
    errors += rules.one_of(f"{here}.scope", scope, ("Cluster", "Namespace"))
    if scope == "Namespace" and not parameters.get("namespace"):
        errors.append(required(f"{here}.namespace", "`parameters.scope` is set to 'Namespace'"))
    if scope == "Cluster" and parameters.get("namespace"):
        errors.append(rules.forbidden(f"{here}.namespace", "`parameters.scope` is set to 'Cluster'"))
    return errors


def _validate_class_update(found: Object, old: Object) -> Errors:
    return rules.immutable("spec.controller", dig(found, "spec.controller"), dig(old, "spec.controller"))


def _hosts(ingress: Object) -> str:
    return ",".join(str(rule["host"]) for rule in dig(ingress, "spec.rules", []) if rule.get("host")) or "*"


def _addresses(ingress: Object) -> str:
    found = dig(ingress, "status.loadBalancer.ingress", [])
    return ",".join(str(each.get("ip") or each.get("hostname")) for each in found)


def _parameters(found: Object) -> str:
    parameters: dict[str, Any] | None = dig(found, "spec.parameters")
    if parameters is None:
        return NONE
    group = f".{parameters['apiGroup']}" if parameters.get("apiGroup") else ""
    return f"{parameters.get('kind')}{group}/{parameters.get('name')}"


KINDS: Final = (
    Kind(
        group="networking.k8s.io",
        version="v1",
        kind="Ingress",
        plural="ingresses",
        schema="io.k8s.api.networking.v1.Ingress",
        singular="ingress",
        short_names=("ing",),
        subresources=("status",),
        columns=(
            at("Class", "spec.ingressClassName", empty=NONE),
            computed("Hosts", _hosts),
            computed("Address", _addresses),
            computed("Ports", lambda obj: "80, 443" if dig(obj, "spec.tls") else "80"),
            AGE,
        ),
        prepare_create=_prepare_create,
        validate=_validate,
    ),
    Kind(
        group="networking.k8s.io",
        version="v1",
        kind="IngressClass",
        plural="ingressclasses",
        schema="io.k8s.api.networking.v1.IngressClass",
        namespaced=False,
        singular="ingressclass",
        columns=(at("Controller", "spec.controller"), computed("Parameters", _parameters), AGE),
        default=_default_class,
        validate=_validate_class,
        validate_update=_validate_class_update,
    ),
)
