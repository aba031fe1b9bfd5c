"""The health of a run: whether each code carries anything, and a warning about one that has collapsed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rwae_audio.model import RWAE

COLLAPSED = 0.05  # a code whose absence costs less reconstruction error than this, relatively, is collapsed
DETERMINISTIC = 0.1  # a posterior variance under this


@torch.no_grad()
def code_state(model: RWAE, frames: Tensor, static_frames: Tensor | None) -> dict[str, float]:
    """Measure what either code carries.

    Args:
        frames: (B, T, n_mels), normalised, of held-out speakers.
        static_frames: The windows of the static encoder, (B, S, n_mels), or None where these are the frames.

    Returns:
        `error`, the squared error a frame and bin; `*_effect`, the relative growth of the error when a code is replaced by its
        mean over the batch; `*_variance`, the mean variance of its posterior.
    """
    training = model.training
    model.eval()
    output = model(frames, static_frames)
    static, dynamic = output.static.mean, output.dynamic.mean
    action = None if output.action is None else output.action.sample

    def error(static: Tensor, dynamic: Tensor) -> float:
        return float((model.decoder(static, dynamic, action) - frames).square().mean())

    whole = error(static, dynamic)
    without_static = error(static.mean(0).expand_as(static), dynamic)
    without_dynamic = error(static, dynamic.mean((0, 1)).expand_as(dynamic))
    model.train(training)
    return {
        "error": whole,
        "static_effect": without_static / whole - 1,
        "dynamic_effect": without_dynamic / whole - 1,
        "static_variance": float(output.static.variance.mean()),
        "dynamic_variance": float(output.dynamic.variance.mean()),
    }


def collapsed_codes(state: Mapping[str, float]) -> list[str]:
    """Return the codes that have collapsed, by the effects of code_state."""
    return [code for code in ("static", "dynamic") if state[f"{code}_effect"] < COLLAPSED]


def collapse_warning(code: str, state: Mapping[str, float], posterior: str) -> str:
    """Return a warning that says what is wrong and what to try; posterior: the kind that the model is configured with."""
    kind = "deterministic" if state[f"{code}_variance"] < DETERMINISTIC else "noisy"
    advice = f"a smaller [objective] {code}_weight, or train for longer"
    if posterior == "learned":
        advice = f'[model] posterior = "fixed" (a learned one may ignore its input at no cost), or {advice}'
    return (
        f"warning: the {code} code has collapsed: without it the reconstruction error grows by only "
        f"{100 * state[f'{code}_effect']:.1f} % (posterior {kind}, mean variance {state[f'{code}_variance']:.3g}); "
        f"try {advice}"
    )
