"""The settings of the model: the sizes of its networks, and the choices that the paper leaves open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from rwae_audio.settings import Settings, at_least, between

PosteriorKind = Literal["fixed", "learned"]


@dataclass(frozen=True)
class ModelConfig(Settings):
    """The settings of the model. Raises ValueError for settings that do not go together.

    Attributes:
        n_mels: Mel bins of a frame, a setting of [mel].
        static_dim: Dimensions of the static code z^c.
        dynamic_dim: Dimensions of a dynamic code z^m.
        static_hidden: Hidden units of the static encoder.
        dynamic_hidden: Hidden units of the dynamic encoder.
        prior_hidden: Hidden units of the dynamic prior.
        decoder_hidden: Hidden units of the decoder.
        static_from: The input of the static encoder: the training `segment` (the paper), `another` window of the
            utterance, or the first `frame` of the segment (DBSE).
        static_window: Frames in a window, if `static_from` is `another`.
        static_stride: The static encoder reads every `static_stride`-th frame.
        static_network: An LSTM, pooled by its last state (`recurrent-last`, the paper) or by mean and deviation
            (`recurrent`), or ECAPA-TDNN's convolutions with attentive pooling (`residual`).
        posterior: The variance of both codes is `fixed` or `learned`. If it is fixed, the means of z^m are standardised over
            the batch, which limits their information to dynamic_dim / 2 · ln(1 + 1 / dynamic_variance) nats a frame.
        static_variance: Variance of the static posterior; the initial one if it is learned.
        dynamic_norm: Normalisation of each mel bin over the segment before the dynamic encoder: `none`, subtraction of the
            `mean`, or division by the deviation as well (`instance`).
        dynamic_variance: Variance of the dynamic posterior; the initial one if it is learned.
        dynamic_offset_variance: Variance of the noise that all frames of a segment share. It hides constant properties of
            the segment, such as the voice.
        feedback: Whether the dynamic posterior depends on the sampled code of the frame before (the paper).
        dynamic_sees_static: Whether the dynamic posterior depends on z^c (Li & Mandt's full q). A recording's dynamic codes
            then depend on its static vector.
        dynamic_look_ahead: Number of later frames that a dynamic code depends on.
        dynamic_per: One dynamic code for each `frame`, or for each `segment` (FHVAE).
        decoder: An LSTM over the codes (`recurrent`, the paper's figure), a network without state (`frame`, the paper's
            formula), or ConvNeXt blocks that z^c modulates (`convolutional`).
        actions: Number of actions; each sequence has one of them. 0 for a model without actions.
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
    static_network: Literal["recurrent", "recurrent-last", "residual"] = "recurrent"
    posterior: PosteriorKind = "fixed"
    static_variance: float = between(0, 100, 0.25, open_low=True)
    dynamic_norm: Literal["none", "mean", "instance"] = "mean"
    dynamic_variance: float = between(0, 100, 0.25, open_low=True)
    dynamic_offset_variance: float = between(0, 100, 8.0)
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
                raise ValueError(
                    '[model] static_network is "residual"; expected a recurrent one if static_from is "frame"'
                )
        if self.feedback and self.dynamic_per == "segment":
            raise ValueError('[model] feedback is true; expected false if dynamic_per is "segment"')
        # such an encoder reads h_t − h_1, from which a mean over the segment would remove h_1 again
        if self.static_from == "frame" and self.dynamic_norm != "none":
            raise ValueError(
                f'[model] dynamic_norm is "{self.dynamic_norm}"; expected "none" if static_from is "frame"'
            )
        if self.dynamic_look_ahead and self.by_segment:
            raise ValueError(
                f"[model] dynamic_look_ahead is {self.dynamic_look_ahead}; expected 0, as these codes depend on whole "
                "segments"
            )

    @property
    def by_segment(self) -> bool:
        """Whether a dynamic code depends on the first frame of its segment.

        If so, recordings are encoded in segments as in training, without overlap.
        """
        return self.dynamic_per == "segment" or self.static_from == "frame"
