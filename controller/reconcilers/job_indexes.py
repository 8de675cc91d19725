"""Completion indexes of an Indexed Job: as text (``1,3-5,7``) and as sets; which pod has which. Pure."""

from collections.abc import Collection

from controller.kinds.kind import Object

INDEX = "batch.kubernetes.io/job-completion-index"
FAILURES = "batch.kubernetes.io/job-index-failure-count"


def parse(text: str, completions: int) -> frozenset[int]:
    """Indexes below ``completions`` in ``text``; what is malformed is left out."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        if first.isdigit() and (last or first).isdigit():
            found.update(range(int(first), min(int(last or first) + 1, completions)))
    return frozenset(found)


def text_of(indexes: Collection[int]) -> str:
    """The shortest text; two neighbours are written ``1,2``, three or more ``1-3``, as upstream does."""
    parts: list[str] = []
    ordered = sorted(indexes)
    start = 0
    for at, index in enumerate(ordered):
        if at + 1 < len(ordered) and ordered[at + 1] == index + 1:
            continue
        run = ordered[start : at + 1]
        parts += [f"{run[0]}-{run[-1]}"] if len(run) > 2 else [str(each) for each in run]
        start = at + 1
    return ",".join(parts)


def index_of(pod: Object) -> int | None:
    text = (pod["metadata"].get("annotations") or {}).get(INDEX, "")
    return int(text) if text.isdigit() else None


def failures_of(pod: Object) -> int:
    """How often the pod's index had failed before the pod was made."""
    text = (pod["metadata"].get("annotations") or {}).get(FAILURES, "")
    return int(text) if text.isdigit() else 0
