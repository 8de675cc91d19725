"""Why a pull failed, and what to do about it: containerd's words, with the cause and the cure in front. Pure."""

DISK_FULL = "the host's disk for images is full; remove images or add space, and the pull is tried again"
NOT_THERE = "the registry has no such image; check its name and tag, or push it"
NO_CREDENTIALS = "the registry wants credentials; name a Secret with them in the pod's imagePullSecrets"
WRONG_CREDENTIALS = "the registry refuses the credentials of the pod's imagePullSecrets; correct that Secret"

_CAUSES: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("unexpected commit digest", "unexpected commit size", "failed size validation"),
        "the registry sent other content than its manifest promises; push the image again",
    ),
    (
        ("no processor for media-type", "unsupported media type", "unexpected media type"),
        "the image has a layer or manifest of an unknown kind; build it with layers of tar, gzip or zstd",
    ),
    (
        ("no match for platform",),
        "the image is not for this host's architecture; build it for that, or choose other hosts by nodeSelector",
    ),
    (
        ("server gave HTTP response to HTTPS client",),
        "the registry speaks plain HTTP; allow that in its hosts.toml below containerd's registry directory",
    ),
    (
        ("x509:",),
        "the registry's certificate is not trusted; name its CA in hosts.toml of containerd's registry directory",
    ),
    (
        ("connection refused", "no such host", "no route to host", "network is unreachable", "i/o timeout"),
        "the registry cannot be reached from this host; check the image's name, and that the registry runs",
    ),
)
"""What containerd or the registry says -> cause and cure, the more certain first."""
_REFUSALS = ("401 Unauthorized", "403 Forbidden", "authorization failed", "insufficient_scope", "no basic auth")


def is_disk_full(text: str) -> bool:
    """Whether containerd says that it could not write, or no more files."""
    return "no space left on device" in text or "disk quota exceeded" in text


def pull_message(text: str, code: str, *, with_credentials: bool) -> str:
    """What a user reads of a pull that ended with the gRPC status ``code`` (``NOT_FOUND``) and the words ``text``."""
    said = f"rpc error: code = {code.title().replace('_', '')} desc = {text}"
    if is_disk_full(text):
        return f"{DISK_FULL}: {said}"
    for words, cause in _CAUSES:
        if any(each in text for each in words):
            return f"{cause}: {said}"
    if any(each in text for each in _REFUSALS):
        return f"{WRONG_CREDENTIALS if with_credentials else NO_CREDENTIALS}: {said}"
    return f"{NOT_THERE}: {said}" if code == "NOT_FOUND" else said
