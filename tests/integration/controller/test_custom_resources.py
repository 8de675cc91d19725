"""CustomResourceDefinitions as a user meets them: kubectl against the API with its controllers."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from controller.runtime import assembly
from tests.integration.conftest import ApiServer
from tests.support.controller_ports import controller_ports

pytestmark = pytest.mark.integration

DEFINITION = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, shortNames: [wd], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.size, statusReplicasPath: .status.size, labelSelectorPath: .status.selector}
    additionalPrinterColumns:
    - {name: Size, type: integer, jsonPath: .spec.size}
    - {name: Ready, type: string, jsonPath: '.status.conditions[?(@.type=="Ready")].status'}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    selectableFields: [{jsonPath: .spec.color}]
    schema:
      openAPIV3Schema:
        type: object
        description: A Widget is a thing.
        properties:
          spec:
            type: object
            required: [color]
            properties:
              size: {type: integer, minimum: 0, maximum: 10, default: 1, description: How many.}
              color: {type: string, enum: [red, green]}
              port: {x-kubernetes-int-or-string: true}
              free: {type: object, x-kubernetes-preserve-unknown-fields: true}
              parts:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                items:
                  type: object
                  required: [name]
                  properties: {name: {type: string}, weight: {type: integer, default: 5}}
          status:
            type: object
            x-kubernetes-preserve-unknown-fields: true
  - name: v1beta1
    served: true
    storage: false
    deprecated: true
    schema:
      openAPIV3Schema:
        type: object
        x-kubernetes-preserve-unknown-fields: true
        properties:
          spec: {type: object, x-kubernetes-preserve-unknown-fields: true, properties: {port: {type: string}}}
    selectableFields: [{jsonPath: .spec.port}]
"""
WIDGET = """
apiVersion: example.com/v1
kind: Widget
metadata: {name: one, labels: {a: b}}
spec:
  color: red
  port: http
  free: {anything: [1, {goes: true}]}
  parts: [{name: x}]
"""


@pytest.fixture
async def server(api_server: ApiServer) -> AsyncIterator[ApiServer]:
    """The API with controllers and without hosts."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(assembly.run(controller_ports(api_server)))
        try:
            yield api_server
        finally:
            task.cancel()


async def define(server: ApiServer, definition: str = DEFINITION) -> None:
    await server.kubectl("apply", "-f", "-", stdin=definition)
    await server.kubectl("wait", "--for=condition=Established", "crd/widgets.example.com", "--timeout=10s")


async def test_objects_are_pruned_defaulted_validated_and_shown(server: ApiServer) -> None:
    kubectl = server.kubectl
    await define(server)
    assert "widget.example.com/one created" in await kubectl("apply", "-f", "-", stdin=WIDGET)
    plain = WIDGET.replace("  parts: [{name: x}]\n", "").replace("name: one", "name: plain")
    await kubectl("apply", "-f", "-", stdin=plain)
    assert "unchanged" in await kubectl("apply", "-f", "-", stdin=plain)
    await kubectl("delete", "wd", "plain")
    got = json.loads(await kubectl("get", "wd", "one", "-o", "json"))
    assert got["spec"] == {
        "color": "red",
        "size": 1,
        "port": "http",
        "free": {"anything": [1, {"goes": True}]},
        "parts": [{"name": "x", "weight": 5}],
    }
    assert got["metadata"]["generation"] == 1
    head, row = (await kubectl("get", "widgets")).splitlines()
    assert head.split() == ["NAME", "SIZE", "READY", "AGE"]
    assert row.split()[:2] == ["one", "1"]
    assert "widget.example.com/one" in await kubectl("get", "all", "-o", "name")
    assert "one" in await kubectl("get", "wd", "--field-selector", "spec.color=red")
    assert "one" not in await kubectl("get", "wd", "--field-selector", "spec.color=green")
    refused = await kubectl("apply", "-f", "-", stdin=WIDGET.replace("red", "blue"), check=False)
    assert 'spec.color: Unsupported value: "blue": supported values: "red", "green"' in refused
    refused = await kubectl("patch", "wd", "one", "--type=merge", "-p", '{"spec":{"size":"two"}}', check=False)
    assert 'spec.size: Invalid value: "string": spec.size in body must be of type integer: "string"' in refused
    refused = await kubectl("patch", "wd", "one", "--type=merge", "-p", '{"spec":{"size":11}}', check=False)
    assert "spec.size in body should be less than or equal to 10" in refused
    refused = await kubectl(
        "patch", "wd", "one", "--type=json", "-p", '[{"op":"remove","path":"/spec/color"}]', check=False
    )
    assert "spec.color: Required value" in refused
    unknown = WIDGET.replace("  color: red", "  color: red\n  colour: red")
    refused = await kubectl("apply", "-f", "-", stdin=unknown, check=False)
    assert 'unknown field "spec.colour"' in refused
    assert "configured" in await kubectl(
        "apply", "--validate=ignore", "-f", "-", stdin=unknown.replace("http", "https")
    )
    assert "colour" not in json.loads(await kubectl("get", "wd", "one", "-o", "json"))["spec"]


async def test_subresources_and_generations(server: ApiServer) -> None:
    kubectl = server.kubectl
    await define(server)
    await kubectl("create", "-f", "-", stdin=WIDGET + "status: {size: 7}\n")
    assert "status" not in json.loads(await kubectl("get", "wd", "one", "-o", "json"))
    await kubectl("scale", "wd", "one", "--replicas=3")
    status = '{"status":{"size":2,"selector":"a=b","conditions":[{"type":"Ready","status":"True"}]},"spec":{"size":9}}'
    await kubectl("patch", "wd", "one", "--subresource=status", "--type=merge", "-p", status)
    got = json.loads(await kubectl("get", "wd", "one", "-o", "json"))
    assert (got["spec"]["size"], got["status"]["size"], got["metadata"]["generation"]) == (3, 2, 2)
    scale = json.loads(await kubectl("get", "--raw", "/apis/example.com/v1/namespaces/default/widgets/one/scale"))
    assert (scale["spec"], scale["status"]) == ({"replicas": 3}, {"replicas": 2, "selector": "a=b"})
    await kubectl("wait", "--for=condition=Ready", "wd/one", "--timeout=5s")
    path = "/apis/example.com/v1/namespaces/default/widgets/one"
    del got["metadata"]["resourceVersion"]
    refused = await kubectl("replace", "--raw", path, "-f", "-", stdin=json.dumps(got), check=False)
    assert "metadata.resourceVersion: Invalid value: 0: must be specified for an update" in refused


async def test_server_side_apply_goes_by_the_schema(server: ApiServer) -> None:
    kubectl = server.kubectl
    await define(server)
    await kubectl("apply", "--server-side", "-f", "-", stdin=WIDGET)
    other = WIDGET.replace("[{name: x}]", "[{name: z, weight: 1}]").replace("  port: http\n", "")
    await kubectl("apply", "--server-side", "--field-manager=other", "-f", "-", stdin=other)
    got = json.loads(await kubectl("get", "wd", "one", "-o", "json"))
    assert {part["name"]: part["weight"] for part in got["spec"]["parts"]} == {"x": 5, "z": 1}
    clash = ("apply", "--server-side", "--field-manager=third", "-f", "-")
    refused = await kubectl(*clash, stdin=WIDGET.replace("red", "green"), check=False)
    assert ".spec.color" in refused


async def test_nobody_applies_fields_that_are_not_there(server: ApiServer) -> None:
    kubectl = server.kubectl
    await define(server)
    apply = ("apply", "--server-side", "--validate=ignore", "-f", "-")
    refused = await kubectl(*apply, stdin=WIDGET.replace("spec:", "extra: 1\nspec:"), check=False)
    assert ".extra: field not declared in schema" in refused
    refused = await kubectl(*apply, stdin=WIDGET.replace("labels:", "label: x, labels:"), check=False)
    assert ".metadata.label: field not declared in schema" in refused
    path = "/apis/example.com/v1/namespaces/default/widgets/one?fieldManager=m&fieldValidation=Strict"
    twice = WIDGET.replace("  color: red\n", "  color: red\n  color: green\n")
    status, text = await server.request("PATCH", path, twice, "application/apply-patch+yaml")
    assert status == 400
    assert 'line 7: key "color" already set in map' in json.loads(text)["message"]
    assert "serverside-applied" in await kubectl(*apply, stdin=WIDGET.replace("{anything:", "{color: x, anything:"))


async def test_versions_show_the_same_object(server: ApiServer) -> None:
    kubectl = server.kubectl
    await define(server)
    await kubectl("apply", "-f", "-", stdin=WIDGET)
    path = "/apis/example.com/v1beta1/namespaces/default/widgets"
    listed = json.loads(await kubectl("get", "--raw", path))
    assert [item["apiVersion"] for item in listed["items"]] == ["example.com/v1beta1"]
    older = WIDGET.replace("example.com/v1", "example.com/v1beta1").replace("name: one", "name: two")
    await kubectl("create", "-f", "-", stdin=older)
    got = json.loads(await kubectl("get", "--raw", "/apis/example.com/v1/namespaces/default/widgets/two"))
    assert (got["apiVersion"], got["spec"]["size"]) == ("example.com/v1", 1)
    of_a_port = json.loads(await kubectl("get", "--raw", f"{path}?fieldSelector=spec.port%3Dhttp"))
    assert [item["metadata"]["name"] for item in of_a_port["items"]] == ["one", "two"]
    assert "not supported" in await kubectl("get", "wd", "--field-selector=spec.port=http", check=False)
    versions = [line.split() for line in (await kubectl("api-versions")).splitlines()]
    assert ["example.com/v1"] in versions
    assert ["example.com/v1beta1"] in versions


async def test_a_new_default_is_seen_in_what_is_stored(server: ApiServer) -> None:
    kubectl = server.kubectl
    await define(server)
    await kubectl("apply", "-f", "-", stdin=WIDGET)
    newer = DEFINITION.replace(
        "color: {type: string", "shade: {type: string, default: dark}\n              color: {type: string"
    )
    await kubectl("apply", "-f", "-", stdin=newer)
    await kubectl("wait", "--for=jsonpath={.spec.shade}=dark", "wd/one", "--timeout=10s")
    await kubectl("apply", "-f", "-", stdin=newer.replace("default: dark", "default: light"))
    await kubectl("wait", "--for=jsonpath={.spec.shade}=light", "wd/one", "--timeout=10s")


async def test_explain_and_discovery(server: ApiServer) -> None:
    kubectl = server.kubectl
    await define(server)
    assert "How many." in await kubectl("explain", "widget.spec.size")
    listed = next(line for line in (await kubectl("api-resources")).splitlines() if line.startswith("widgets "))
    assert listed.split() == ["widgets", "wd", "example.com/v1", "true", "Widget"]


async def test_a_deleted_definition_takes_its_objects_along(server: ApiServer) -> None:
    kubectl = server.kubectl
    await define(server)
    await kubectl("apply", "-f", "-", stdin=WIDGET.replace("name: one", "name: one, finalizers: [example.com/hold]"))
    await kubectl("delete", "crd", "widgets.example.com", "--wait=false")
    await kubectl("wait", "--for=jsonpath={.metadata.deletionGracePeriodSeconds}=0", "wd/one", "--timeout=10s")
    refused = await kubectl("create", "-f", "-", stdin=WIDGET.replace("name: one", "name: two"), check=False)
    assert "MethodNotAllowed" in refused
    await kubectl("patch", "wd", "one", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    await kubectl("wait", "--for=delete", "crd/widgets.example.com", "--timeout=10s")
    assert "NotFound" in await kubectl("get", "--raw", "/apis/example.com/v1/widgets", check=False)
    await define(server)
    assert json.loads(await kubectl("get", "wd", "-o", "json"))["items"] == []


async def test_namespaces_and_owners_take_custom_objects_along(server: ApiServer) -> None:
    kubectl = server.kubectl
    await define(server)
    await kubectl("create", "namespace", "made")
    await kubectl("apply", "-n", "made", "-f", "-", stdin=WIDGET)
    await kubectl("delete", "namespace", "made", "--timeout=10s")
    await kubectl("apply", "-f", "-", stdin=WIDGET)
    uid = await kubectl("get", "wd", "one", "-o", "jsonpath={.metadata.uid}")
    owner = {"apiVersion": "example.com/v1", "kind": "Widget", "name": "one", "uid": uid}
    child = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "child", "ownerReferences": [owner]}}
    await kubectl("create", "-f", "-", stdin=json.dumps(child))
    await kubectl("delete", "wd", "one")
    await kubectl("wait", "--for=delete", "cm/child", "--timeout=10s")


async def test_bad_definitions_are_told_what_is_wrong(server: ApiServer) -> None:
    cases = {
        ("name: widgets.example.com", "name: gadgets.example.com"): "must be spec.names.plural",
        ("{type: string, enum: [red, green]}", "{enum: [red, green]}"): "type: Required value",
        ("storage: true", "storage: false"): "must have exactly one version marked as storage version",
        ("scope: Namespaced", "scope: Galaxy"): 'spec.scope: Unsupported value: "Galaxy"',
        ("default: 1,", "default: 11,"): "should be less than or equal to 10",
        (
            "items:\n                  type: object",
            "items:\n                  type: [object]",
        ): "cannot unmarshal array",
        ("jsonPath: .spec.size", 'jsonPath: ".spec[size"'): "jsonPath: Invalid value",
    }
    for (old, new), why in cases.items():
        assert old in DEFINITION
        refused = await server.kubectl("create", "-f", "-", stdin=DEFINITION.replace(old, new), check=False)
        assert why in refused, (new, refused)
