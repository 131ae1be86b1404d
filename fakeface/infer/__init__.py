"""Using a detector. `from fakeface.infer import Detector` is the same as `from fakeface import Detector`."""

# Written by hand: the door of a package, not a room. Nothing is imported until it is asked for.
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .batch import score_batch
    from .detector import Detector
    from .verdict import InferError, Verdict

__all__ = ["Detector", "InferError", "Verdict", "score_batch"]

_HOMES = {
    "Detector": "fakeface.infer.detector",
    "InferError": "fakeface.infer.verdict",
    "Verdict": "fakeface.infer.verdict",
    "score_batch": "fakeface.infer.batch",
}


if not TYPE_CHECKING:  # a type checker knows the names above, and no others

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
