"""What is made a network's outputs, and in which order, as a device's profile wants it."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from tpumake.detection_head import Head, NoHead, Tensor, find_head

__all__ = ["Selection", "automatic", "select"]


@dataclass(frozen=True)
class Selection:
    """What a device wants of a network: tensors in order, with their roles beside them.

    ``whole`` tells that they are the network's own outputs. ``decoder`` is the device's for them,
    None where it has none; ``notes`` are sentences for whoever builds the model.
    """

    outputs: tuple[tuple[str, Tensor], ...]
    whole: bool
    decoder: str | None
    notes: tuple[str, ...] = ()

    def names(self) -> list[str] | None:
        """The tensors to cut at; None where nothing is cut, and there is no order to keep.

        A whole network is "cut" at its own outputs where there are several: older exporters compute
        masks' prototypes first, and tpu_mlir lists outputs as they are computed.
        """
        if self.whole and len(self.outputs) < 2:
            return None
        return [tensor.name for _, tensor in self.outputs]


def automatic(model: onnx.ModelProto, profile: dict) -> Selection:
    """What a device wants of a network, which may have no detection head."""
    try:
        return select(find_head(model), profile)
    except NoHead:
        return select(None, profile)


def select(head: Head | None, profile: dict) -> Selection:
    """Choose a network's outputs for a device.

    :param head: what the network ends in, None where that is no detection head
    """
    entry = profile["heads"].get(head.kind if head else "other", {"outputs": ["own"]})
    notes = [entry["note"]] if "note" in entry else []
    decoder = entry.get("decoder")
    if head is None:
        return Selection((), True, decoder, tuple(notes))
    if entry["outputs"] == ["own"]:
        if not head.lacking:
            return Selection(tuple(("own", each) for each in head.own), True, decoder, tuple(notes))
        return Selection(_cut(head), False, *_in_place_of_own(head, decoder, profile))
    missing = [role for role in entry["outputs"] if not _tensors(head, role)]
    if missing:
        notes = [f"The network has no tensor that is {missing[0]}, which {profile['title']} wants."]
        return Selection(_cut(head), False, None, tuple(notes))
    order = entry.get("order_by_classes", {}).get(str(head.classes), entry["order"])
    chosen = _ordered(head, entry["outputs"], order)
    return Selection(tuple(chosen), False, decoder, tuple(notes))


def _in_place_of_own(
    head: Head, decoder: str | None, profile: dict
) -> tuple[str | None, tuple[str, ...]]:
    """Decoder and notes where the network's own outputs can't be had."""
    why = (
        f"Its own outputs come from {' and '.join(head.lacking)}, which the cameras' chips lack: "
        "it is cut before."
    )
    if decoder is None:
        return None, (why,)
    again = (
        f"{profile['title']} wants the whole head: export the network without its own choice of "
        "boxes (Ultralytics' end2end=False; newer versions do so unless told nms=False)."
    )
    return None, (why, again)


def _cut(head: Head) -> tuple[tuple[str, Tensor], ...]:
    """All convolutions that the head ends in."""
    roles = [*head.branches(), *(["prototypes"] if "prototypes" in head.joined else [])]
    return tuple(_ordered(head, roles, "interleaved"))


def _tensors(head: Head, role: str) -> list[Tensor]:
    if role in head.joined:
        return [head.joined[role]]
    return [level.branches[role] for level in head.levels if role in level.branches]


def _ordered(head: Head, roles: list[str], order: str) -> list[tuple[str, Tensor]]:
    """Tensors of these roles: those of one stride after the other, or role after role."""
    if order == "grouped":
        return [(role, tensor) for role in roles for tensor in _tensors(head, role)]
    at_strides = [
        (role, level.branches[role])
        for level in head.levels
        for role in roles
        if role in level.branches
    ]
    return at_strides + [(role, head.joined[role]) for role in roles if role in head.joined]
