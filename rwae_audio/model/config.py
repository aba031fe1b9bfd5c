"""The sizes of the model, and every choice that the paper leaves open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from rwae_audio.settings import Settings, at_least, between

PosteriorKind = Literal["fixed", "learned"]


@dataclass(frozen=True)
class ModelConfig(Settings):
    """Sizes, and every choice that the paper leaves open.

    static_from      where the static code's frames lie: the training `segment`, or `another` window of the same utterance,
                     `static_window` frames long; the encoder reads every `static_stride`-th of them. Or the segment's
                     first `frame`, as a feature, alone: the dynamic code is read off what is left of the others' features
                     without it (DBSE)
    embedding_window    an utterance's static vector is the mean of its codes over windows of so many frames, or of as many
                     as in training (0)
    static_network   `recurrent`: an LSTM (the paper's); `residual`: blocks of convolutions, as in ECAPA-TDNN
    static_pooling   the code is read off the LSTM's `last` state, the `mean` and `deviation` of its states over time, or
                     the same under weights that it learns (`attentive`)
    dynamic_norm     what is taken from each mel bin of the dynamic encoder's input: nothing, its `mean` over the
                     sequence, or mean and deviation (`instance` norm)
    posterior        of both codes: `fixed` (variances `*_variance`) or `learned` (starting at `*_variance`)
    dynamic_offset_variance    variance of a noise that all frames of a sequence share, on top of each frame's own: what
                     is constant over time could else be averaged out of the frames' noise, and the voice is constant
    standardise      batch-standardise the means of z^m, so that a fixed posterior variance bounds what they can carry:
                     (dynamic_dim / 2) · ln(1 + 1 / dynamic_variance) nats a frame
    feedback         the dynamic posterior sees z^m_{t-1} (the paper's q) or only x_{≤t}
    dynamic_sees_static    the dynamic posterior is q(z^m | z^c, x): z^c stands beside each of its frames (Li & Mandt's
                     full q). Where it is a whole utterance that is encoded, z^c is the utterance's mean
    dynamic_look_ahead    how many frames after its own a code is read off as well
    dynamic_per      z^m is one code a `frame`, or one a `segment` that all its frames share, read off the last state
    decoder          `recurrent`: an LSTM over [z^c, z^m_t] (the paper's figure); `frame`: frame by frame (its formula);
                     `convolutional`: ConvNeXt blocks over the codes, each of which z^c modulates
    actions          how many actions there are, one a sequence (0: none): a code a beside z^c and z^m_t
    """

    table: ClassVar[str] = "model"
    n_mels: int = at_least(1, 80)
    static_dim: int = at_least(1, 16)
    dynamic_dim: int = at_least(1, 8)
    static_hidden: int = at_least(1, 128)
    dynamic_hidden: int = at_least(1, 128)
    prior_hidden: int = at_least(1, 128)
    decoder_hidden: int = at_least(1, 128)
    static_from: Literal["segment", "another", "frame"] = "another"
    static_window: int = at_least(1, 60)
    static_stride: int = at_least(1, 2)
    embedding_window: int = at_least(0, 0)
    static_network: Literal["recurrent", "residual"] = "recurrent"
    static_pooling: Literal["last", "mean-deviation", "attentive"] = "mean-deviation"
    posterior: PosteriorKind = "fixed"
    static_variance: float = between(0, 100, 0.25, open_low=True)
    dynamic_norm: Literal["none", "mean", "instance"] = "mean"
    dynamic_variance: float = between(0, 100, 0.25, open_low=True)
    dynamic_offset_variance: float = between(0, 100, 8.0)
    standardise: bool = True
    feedback: bool = False
    dynamic_sees_static: bool = False
    dynamic_look_ahead: int = at_least(0, 0)
    dynamic_per: Literal["frame", "segment"] = "frame"
    decoder: Literal["recurrent", "frame", "convolutional"] = "recurrent"
    actions: int = at_least(0, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.actions == 1:
            raise ValueError("[model] actions is 1; expected 0 (none), or 2 or more")
        if self.static_network == "residual":
            if self.static_pooling == "last":
                raise ValueError('[model] static_pooling is "last"; a residual static_network needs another')
            if self.static_hidden % 4:
                raise ValueError(
                    f"[model] static_hidden is {self.static_hidden}; expected a multiple of 4 for residual blocks"
                )
            if self.static_from == "frame":
                raise ValueError('[model] static_network is "residual"; a code from a "frame" needs a recurrent one')
        if self.feedback and self.dynamic_per == "segment":
            raise ValueError('[model] feedback is true; expected false, as a code a "segment" has none before it')
        if self.static_from == "frame" and self.dynamic_norm != "none":  # the subtraction would be undone by another
            raise ValueError(
                f'[model] dynamic_norm is "{self.dynamic_norm}"; expected "none" where static_from is "frame"'
            )
        if self.dynamic_look_ahead and self.by_segment:
            raise ValueError(
                f"[model] dynamic_look_ahead is {self.dynamic_look_ahead}; expected 0, as these codes see whole segments"
            )

    @property
    def by_segment(self) -> bool:
        """Is z^m_t another where its segment begins elsewhere? Then recordings are encoded in segments as in training."""
        return self.dynamic_per == "segment" or self.static_from == "frame"
