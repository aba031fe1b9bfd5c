"""The sizes of the model, and every choice that the paper leaves open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from rwae_audio.settings import Settings, at_least, between

PosteriorKind = Literal["fixed", "learned"]


@dataclass(frozen=True)
class ModelConfig(Settings):
    """The sizes of the networks, and every choice that the paper leaves open.

    Attributes:
        n_mels: Mel bins of the frames, which a configuration says in [mel].
        static_dim: Dimensions of the static code z^c.
        dynamic_dim: Dimensions of a dynamic code z^m.
        static_hidden: Width of the static encoder.
        dynamic_hidden: Width of the dynamic encoder.
        prior_hidden: Width of the dynamic prior.
        decoder_hidden: Width of the decoder.
        static_from: The static code is read off the training `segment` (the paper), `another` window of the utterance,
            or the first `frame` of the segment alone (DBSE).
        static_window: Frames in that other window.
        static_stride: The static encoder reads every so many frames.
        embedding_window: Frames in the windows over which a recording's static vector is the mean; 0 for those of
            training.
        static_network: The code is read off an LSTM's last state (`recurrent-last`, the paper), off mean and deviation of
            its states (`recurrent`), or off both under learned weights, of convolutions as in ECAPA-TDNN (`residual`).
        posterior: Both codes have a `fixed` variance, or a `learned` one that starts at it.
        static_variance: Variance of the static posterior.
        dynamic_norm: What is taken from each bin of the dynamic encoder's input: nothing, its mean over the segment, or
            mean and deviation (`instance`).
        dynamic_variance: Variance of the dynamic posterior.
        dynamic_offset_variance: Variance of noise that all frames of a segment share, which hides what is constant.
        standardise: Means of z^m are standardised over the batch, so that a fixed variance bounds what they carry, to
            dynamic_dim / 2 · ln(1 + 1 / dynamic_variance) nats a frame.
        feedback: The dynamic posterior sees the code of the frame before (the paper).
        dynamic_sees_static: The dynamic posterior sees z^c (Li & Mandt's full q); of a whole utterance, its mean.
        dynamic_look_ahead: Frames after its own that a dynamic code is read off as well.
        dynamic_per: z^m is one code a `frame`, or one a `segment` (FHVAE).
        decoder: `recurrent` is an LSTM over the codes (the paper's figure), `frame` has no state (its formula), and
            `convolutional` is ConvNeXt blocks that z^c modulates.
        actions: The number of actions, one of which each sequence has; 0 for a model without.
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
    static_network: Literal["recurrent", "recurrent-last", "residual"] = "recurrent"
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
        """Whether z^m_t depends on where its segment begins. Recordings are then encoded in segments as in training."""
        return self.dynamic_per == "segment" or self.static_from == "frame"
