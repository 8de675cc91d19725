"""Storage: claims that name no class get the default one; claims and volumes are protected while they are in use.

Spec: kube ``plugin/pkg/admission/storage`` (DefaultStorageClass, StorageObjectInUseProtection).
"""

from collections.abc import Callable
from typing import Final

from controller.api.admission import AdmissionRequest, Lookup
from controller.kinds import claims
from controller.kinds.kind import Object

_FINALIZERS: Final = {
    claims.CLAIMS: claims.CLAIM_PROTECTION,
    claims.VOLUMES: claims.VOLUME_PROTECTION,
}


class StorageDefaults:
    """``classes`` lists every StorageClass."""

    def __init__(self, classes: Callable[[], list[Object]]) -> None:
        self._classes = classes

    def admit(self, request: AdmissionRequest, lookup: Lookup) -> None:
        """Complete a new claim or volume. Refuses nothing."""
        del lookup
        finalizer = _FINALIZERS.get(request.kind.key)
        if finalizer is None or request.operation != "CREATE" or request.subresource:
            return
        meta = request.obj["metadata"]
        held = meta.get("finalizers") or []
        meta["finalizers"] = held if finalizer in held else [*held, finalizer]
        if request.kind.key == claims.CLAIMS and claims.class_of(request.obj) is None:
            chosen = claims.default_class(self._classes())
            if chosen is not None:
                request.obj.setdefault("spec", {})["storageClassName"] = chosen
