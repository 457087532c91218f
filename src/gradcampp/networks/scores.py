"""The meaning of a network's outputs: the score of a class, and its derivatives.

``softmax``: classes exclude each other, and the outputs are logits. ``sigmoid``: each output is the logit of its own yes or no,
as in multi-label and binary networks. ``logit``: the outputs are what is asked for, as in regression; nothing follows them, so
that there is a gradient before the softmax (pre) and none behind it (post).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from gradcampp.cam import SCORES, Scores
from gradcampp.errors import InputError

Score = Literal["softmax", "sigmoid", "logit"]
SUM_TOLERANCE = 1e-3  # of probabilities that a network rounds to bfloat16


def kinds(score: Score) -> tuple[Scores, ...]:
    """The gradients that there are of a score: before and behind its softmax or sigmoid, or of a logit the one."""
    return SCORES[:1] if score == "logit" else SCORES


def probabilities(logits: Tensor, score: Score = "softmax") -> Tensor:
    """The scores of all classes in float64, where neither a tiny one nor the last bit below 1 is lost; (B, C).

    A softmax or sigmoid of the logits; for ``logit`` these themselves, which are no probabilities.
    """
    values = logits.double()
    return values if score == "logit" else values.sigmoid() if score == "sigmoid" else values.softmax(1)


def cotangents(logits: Tensor, labels: Tensor, score: Score = "softmax") -> Tensor:
    """Derivatives of each image's own score by its logits: of the logit, and unless it is all there is, of the score behind it.

    Args:
        logits: (B, C), in float32 or better.
        labels: (B,) int64.

    Returns:
        (2, B, C), pre and post; (1, B, C) for ``logit``.

    Source: Lerma & Lucas (2022), the footnote of section 2.1.1, for the softmax.
    """
    own = nn.functional.one_hot(labels, logits.shape[1]).to(logits.dtype)  # (B, C)
    if score == "logit":
        return own[None]
    if score == "sigmoid":
        return torch.stack([own, own * logits.sigmoid() * (-logits).sigmoid()])  # 1 - s keeps its digits where s is 1 in float32
    exponentials = (logits - logits.amax(1, keepdim=True)).exp()
    p = exponentials / exponentials.sum(1, keepdim=True)
    p_own = p.gather(1, labels[:, None])  # (B, 1)
    others = (p * (1 - own)).sum(1, keepdim=True)  # 1 - p, which keeps its digits where p is 1 in float32
    return torch.stack([own, p_own * torch.where(own == 1, others, -p)])


def check(outputs: Tensor, score: Score, last_operation: Callable[[], str] = str) -> str:
    """See to it that outputs are what the score takes them for.

    Args:
        outputs: of the network for several inputs, (B, C).
        last_operation: asked for the name of the network's last operation where outputs lie in [0, 1]; by default unknown.

    Returns:
        A line that says what is assumed where nobody can know, or nothing.

    Raises:
        InputError: if the score would be 1 for every input, or follow a softmax or sigmoid that the network has already.
    """
    values = outputs.double()
    between = bool(((values >= 0) & (values <= 1)).all())
    count = values.shape[1]
    if score == "logit":
        return ""
    last = last_operation() if between else ""
    if score == "softmax" and count == 1 and not (between and last.startswith("Sigmoid")):
        raise InputError(
            "the network has one output, and the softmax of one number is always 1; choose --score sigmoid where it is the logit "
            "of its one class (for photographs of both, let it return torch.cat([-x / 2, x / 2], 1), whose softmax is the same "
            "score), or --score logit where it is a quantity"
        )
    as_they_are = "or choose --score logit, which explains the outputs as they are"
    whole = 100 if values.max() > 1 else 1  # percentages
    sums = bool((values >= 0).all() and ((values.sum(1) / whole - 1).abs() < SUM_TOLERANCE).all())
    if (between and last.startswith("Softmax")) or (count > 1 and sums):
        raise InputError(
            f"the network's outputs lie in [0, {whole}] and sum to {whole}: it ends in a softmax, which would be taken twice; "
            f"let it return the logits before its softmax (replace that by torch.nn.Identity()), {as_they_are}"
        )
    if between and last.startswith(("Sigmoid", "Hardsigmoid")):
        raise InputError(
            f"the network's outputs lie in [0, 1]: it ends in a sigmoid, which a {score} would follow; let it return the logits "
            f"before its sigmoid (replace that by torch.nn.Identity()) and choose --score sigmoid, {as_they_are}"
        )
    if score == "softmax" and count > 1 and bool((values.logsumexp(1).abs() < SUM_TOLERANCE).all()):
        return (
            "the network ends in a log-softmax: its softmax scores are right, and what is explained before the softmax is the "
            "logarithm of a probability, not a logit"
        )
    if between and bool(values.any()):
        return f"the network's outputs lie in [0, 1]; they are taken for logits that a {score} follows"
    return ""


def last_operation(module: nn.Module, inputs: Tensor) -> str:
    """The operation that a network in evaluation mode ends in, as ``SoftmaxBackward0``; empty where it cannot be seen."""
    with torch.enable_grad():
        try:
            outputs = module(inputs.clone().requires_grad_())
        except Exception:  # a network that runs without gradients only, whose outputs then have to tell
            return ""
    step = outputs.grad_fn if isinstance(outputs, Tensor) else None
    while step is not None and step.name().startswith(("View", "Reshape", "Squeeze", "Unsqueeze", "ToCopy", "Clone", "Alias")):
        step = step.next_functions[0][0] if step.next_functions else None
    return step.name() if step is not None else ""
