"""The check for collapsed codes: how much each code contributes to the reconstruction, with a warning if it is too little."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rwae_audio.model import RWAE

COLLAPSED = 0.05  # relative growth of the reconstruction error without a code, under which the code has collapsed
DETERMINISTIC = 0.1  # posterior variance under which a posterior is called deterministic


@torch.no_grad()
def code_state(model: RWAE, frames: Tensor, static_frames: Tensor | None) -> dict[str, float]:
    """Measure how much each code contributes to the reconstruction.

    Args:
        model: The model, left in the mode that it came in.
        frames: Normalised log-mels of held-out speakers, (B, T, n_mels).
        static_frames: The windows of the static encoder, (B, S, n_mels); None for `frames`.

    Returns:
        The measures by name. `error` is the mean squared error. `static_effect` and `dynamic_effect` are its relative
        growth when the code is replaced by its mean over the batch. `static_variance` and `dynamic_variance` are the mean
        variances of the posteriors.
    """
    training = model.training
    model.eval()
    output = model(frames, static_frames)
    static, dynamic = output.static.mean, output.dynamic.mean
    action = None if output.action is None else output.action.sample

    def error(static: Tensor, dynamic: Tensor) -> float:
        return float((model.decoder(static, dynamic, action) - frames).square().mean())

    with_both = error(static, dynamic)
    without_static = error(static.mean(0).expand_as(static), dynamic)
    without_dynamic = error(static, dynamic.mean((0, 1)).expand_as(dynamic))
    model.train(training)
    return {
        "error": with_both,
        "static_effect": without_static / with_both - 1,
        "dynamic_effect": without_dynamic / with_both - 1,
        "static_variance": float(output.static.variance.mean()),
        "dynamic_variance": float(output.dynamic.variance.mean()),
    }


def collapsed_codes(state: Mapping[str, float]) -> list[str]:
    """Return the names of the codes that have collapsed.

    Args:
        state: The measures of `code_state`.
    """
    return [code for code in ("static", "dynamic") if state[f"{code}_effect"] < COLLAPSED]


def collapse_warning(code: str, state: Mapping[str, float], posterior: str) -> str:
    """Return a warning about a collapsed code, with advice.

    Args:
        code: "static" or "dynamic".
        state: The measures of `code_state`.
        posterior: The setting [model] posterior.
    """
    kind = "deterministic" if state[f"{code}_variance"] < DETERMINISTIC else "noisy"
    advice = f"a smaller [objective] {code}_weight, or train for longer"
    if posterior == "learned":
        advice = f'[model] posterior = "fixed" (a learned one may ignore its input at no cost), or {advice}'
    return (
        f"warning: the {code} code has collapsed: without it the reconstruction error grows by only "
        f"{100 * state[f'{code}_effect']:.1f} % (posterior {kind}, mean variance {state[f'{code}_variance']:.3g}); "
        f"try {advice}"
    )
