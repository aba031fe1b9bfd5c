"""What the vocoder learns from, by other means: losses, crops of speech, discriminators, and the filters' derivative."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from made_up import speech
from torch import nn

from rwae_audio.conversion.vocoders import discriminators
from rwae_audio.conversion.vocoders.crops import Speech, draw
from rwae_audio.conversion.vocoders.neural import Vocoder, VocoderConfig, load_vocoder
from rwae_audio.conversion.vocoders.settings import TrainConfig
from rwae_audio.conversion.vocoders.spectra import SIZES, Spectra, mel_distance, overlapped, spectral_distance
from rwae_audio.data.features import PRESETS, log_mel, mel_filters
from rwae_audio.devices import has_bf16
from rwae_audio.model.posterior import run_in_bf16

CPU, MEL = torch.device("cpu"), PRESETS["vocoder"]
needs_bf16 = pytest.mark.skipif(not has_bf16(CPU), reason="this CPU has no bfloat16 arithmetic")


def two(seconds: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    """What was made, with a gradient, and what is wanted: (B, N) each."""
    sounds = torch.stack([torch.from_numpy(speech(seed, seconds)) for seed in range(4)])
    return sounds[:2].clone().requires_grad_(), sounds[2:]


def spectrum(samples: torch.Tensor, size: int, hop: int) -> torch.Tensor:
    return torch.stft(samples, size, hop, size, torch.hann_window(size).to(samples), return_complex=True)


# ---- the losses


@pytest.mark.parametrize(("size", "hop", "length"), [(512, 128, 512), (64, 20, 50), (64, 64, 64)])
def test_power_spectra_and_their_derivative_are_those_of_torch(size: int, hop: int, length: int) -> None:
    samples = torch.randn(2, 1000, dtype=torch.float64, requires_grad=True)
    window = torch.hann_window(length)  # in float32, as there
    wanted = torch.stft(samples, size, hop, length, window.double(), return_complex=True).abs().square()
    found = Spectra(samples).power(size, hop, length)
    torch.testing.assert_close(found, wanted.transpose(1, 2))
    ahead = torch.randn_like(found)
    (theirs,) = torch.autograd.grad(wanted, samples, ahead.transpose(1, 2))
    torch.testing.assert_close(torch.autograd.grad(found, samples, ahead)[0], theirs)


def test_a_spectrum_is_computed_once() -> None:
    spectra = Spectra(two()[0])
    assert spectra.power(1024) is spectra.power(1024, 256, 1024)
    assert spectra.power(1024, 200) is not spectra.power(1024)


def test_frames_are_added_up_where_they_lie() -> None:
    frames = torch.arange(1.0, 9.0).view(1, 2, 4)
    assert overlapped(frames, 2, 7).tolist() == [[1, 2, 3 + 5, 4 + 6, 7, 8, 0]]
    assert overlapped(frames, 3, 7).tolist() == [[1, 2, 3, 4 + 5, 6, 7, 8]]


def test_the_spectral_loss_is_that_of_its_definition_and_of_auraloss() -> None:
    made, wanted = two()
    found = spectral_distance(Spectra(made), Spectra(wanted))
    (gradient,) = torch.autograd.grad(found, made)
    parts = []
    for size in SIZES:
        one, other = (spectrum(samples, size, size // 4).abs().clamp_min(1e-4) for samples in (made, wanted))
        parts.append((other - one).norm() / other.norm() + (one.log() - other.log()).abs().mean())
    reference = torch.stack(parts).mean()
    assert float(found.detach()) == pytest.approx(float(reference.detach()), rel=1e-5)
    theirs = torch.autograd.grad(reference, made)[0]
    torch.testing.assert_close(gradient, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))
    freq = pytest.importorskip("auraloss.freq")
    loss = freq.MultiResolutionSTFTLoss([*SIZES], [size // 4 for size in SIZES], [*SIZES])
    assert float(found.detach()) == pytest.approx(float(loss(made[:, None], wanted[:, None]).detach()), rel=1e-4)


def test_the_distance_of_log_mels_is_that_of_its_definition() -> None:
    made, wanted = two()
    found = mel_distance(Spectra(made), Spectra(wanted), MEL)
    one, other = (
        (spectrum(samples, 1024, 256).abs().transpose(1, 2) @ mel_filters(MEL)).clamp_min(1e-4).log()
        for samples in (made, wanted)
    )
    assert float(found.detach()) == pytest.approx(float((one - other).abs().mean().detach()), abs=1e-3)
    found.backward()
    assert made.grad is not None
    assert made.grad.isfinite().all()
    assert float(mel_distance(Spectra(wanted), Spectra(wanted), MEL)) == 0


# ---- the speech


def numbered(counts: list[int]) -> Speech:
    """Recordings of so many frames, whose samples, log-mels and F0 say which frame they are of.

    Decoded log-mels have the opposite sign, and those of another pitch are larger by a half.
    """
    frames = np.arange(sum(counts), dtype=np.float32)
    log_mels = np.repeat(frames[:, None], 80, axis=1)
    kinds = np.stack([log_mels, -log_mels, log_mels + 0.5, -log_mels - 0.5])
    offsets = np.cumsum([0, *counts])
    voices = np.arange(1.0, 1 + len(counts), dtype=np.float32)[:, None]  # the number of the recording, from 1 on
    return Speech(frames.repeat(256), kinds, frames, offsets, voices, MEL, ("",) * len(counts))


def test_crops_lie_within_a_recording_and_are_drawn_alike() -> None:
    heard, settings = numbered([9, 4, 7]), TrainConfig(batch=3000, frames=5, decoded=0.25, moved=0.4)
    log_mels, f0, samples, voices = draw(heard, settings, 0)
    assert (log_mels.shape, f0.shape, samples.shape) == ((3000, 5, 80), (3000, 5), (3000, 4 * 256))
    assert log_mels.dtype == f0.dtype == samples.dtype == torch.float32
    begins, counts = f0[:, 0].unique(return_counts=True)
    assert begins.tolist() == [0, 1, 2, 3, 4, 13, 14, 15]
    assert counts.min() > 0.8 * 3000 / 8
    assert torch.equal(f0, f0[:, :1] + torch.arange(5))
    assert torch.equal(samples, f0[:, :-1].repeat_interleave(256, dim=1))
    assert torch.equal(log_mels.abs().floor(), f0[..., None].expand(-1, -1, 80))
    decoded, moved = (log_mels < 0).any(-1).any(-1), (log_mels % 1 > 0).any(-1).any(-1)
    assert float(decoded.float().mean()) == pytest.approx(0.25, abs=0.03)
    assert float(moved.float().mean()) == pytest.approx(0.4, abs=0.03)
    assert float((decoded & moved).float().mean()) == pytest.approx(0.1, abs=0.02)
    known = voices[:, 0] > 0
    assert float(known.float().mean()) == pytest.approx(0.8, abs=0.03)
    recordings = 1 + (f0[known, 0] >= 9).float() + (f0[known, 0] >= 13).float()
    assert torch.equal(voices[known, 0], recordings)
    for mine, again, other in zip((log_mels, f0), draw(heard, settings, 0), draw(heard, settings, 1), strict=False):
        assert torch.equal(mine, again)
        assert not torch.equal(mine, other)


# ---- the discriminators


def judged(they: discriminators.Discriminators, samples: torch.Tensor) -> list[torch.Tensor]:
    return they.pictures(Spectra(samples))


@pytest.mark.slow
def test_what_discriminators_ask_for() -> None:
    """At a score of 0 both hinges are 1; what was recorded has no distance from itself; two noises are soon told apart; and
    what the vocoder learns passes through them, into it alone."""
    torch.manual_seed(0)
    they = discriminators.Discriminators(4, 1e-2)
    assert sum(p.numel() for p in discriminators.Discriminators(16, 1e-3).parameters()) < 1e6
    recorded, made = 0.1 * torch.randn(2, 4000), 0.1 * torch.randn(2, 4000).cumsum(1)
    made.requires_grad_()
    same = they.terms(judged(they, recorded), judged(they, recorded.clone()))
    assert float(same["matching"].detach()) == 0.0
    told = they.terms(judged(they, recorded), judged(they, made))
    sum(told.values()).backward()
    assert made.grad is not None
    assert float(made.grad.abs().sum()) > 0
    assert all(parameter.grad is None for parameter in they.parameters())
    assert all(parameter.requires_grad for parameter in they.parameters())
    for one in they.each:
        one.last.parametrizations.weight.original0.data.zero_()  # the norm of its weight
        one.last.bias.data.zero_()
    told = they.terms(judged(they, recorded), judged(they, made))
    assert float(told["adversarial"].detach()) == pytest.approx(1.0)
    losses = [float(they.step(judged(they, recorded), judged(they, made))) for _ in range(30)]
    assert losses[0] == pytest.approx(2.0)
    assert losses[-1] < 1.0


def test_terms_and_their_gradient_are_those_of_the_definition() -> None:
    torch.manual_seed(0)
    they, (made, recorded) = discriminators.Discriminators(4, 1e-2), two()
    found = they.terms(judged(they, recorded), judged(they, made))
    adversarial, matching = [], []
    for one in they.each:
        with torch.no_grad():
            goal = one(one.picture(Spectra(recorded)))
        said = one(one.picture(Spectra(made)))
        adversarial.append((1 - said.score).clamp_min(0).mean())
        matching += [(a - b).abs().mean() for a, b in zip(said.states, goal.states, strict=True)]
    wanted = {"adversarial": torch.stack(adversarial).mean(), "matching": torch.stack(matching).mean()}
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value)
        (mine,) = torch.autograd.grad(found[name], made, retain_graph=True)
        (theirs,) = torch.autograd.grad(value, made, retain_graph=True)
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))


def test_every_pth_sample_is_convolved_alone() -> None:
    """As a convolution over images (N / p, p) with kernels (5, 1) says."""
    torch.manual_seed(0)
    one, samples = discriminators.PeriodDiscriminator(3, 4), torch.randn(2, 1000)
    layer = one.layers[0]
    folded = torch.nn.functional.pad(samples, (0, 2), mode="reflect").view(2, 1, -1, 3)
    wanted = torch.nn.functional.conv2d(folded, layer.weight[..., None], layer.bias, (3, 1), (2, 0))
    found = one.convolved(layer, one.picture(Spectra(samples)))  # (B · p, T, channels)
    torch.testing.assert_close(found.unflatten(0, (2, 3)).permute(0, 3, 2, 1), wanted)


@needs_bf16
def test_in_bf16_pictures_scores_and_losses_are_float32() -> None:
    torch.manual_seed(0)
    they, (made, recorded) = discriminators.Discriminators(8, 1e-2), two()
    single = they.terms(judged(they, recorded), judged(they, made))
    run_in_bf16(they, CPU, True)
    pictures = judged(they, recorded), judged(they, made)
    assert {picture.dtype for picture in pictures[0]} == {torch.float32}
    judgements = they(pictures[1])
    assert {one.score.dtype for one in judgements} == {torch.float32}
    assert {state.dtype for one in judgements for state in one.states} == {torch.bfloat16}
    half = they.terms(*pictures)
    assert they.step(*pictures).dtype == torch.float32
    for name, value in half.items():
        assert value.dtype == torch.float32
        assert float(value.detach()) == pytest.approx(float(single[name].detach()), rel=0.02)


# ---- the vocoder


def heard() -> tuple[torch.Tensor, torch.Tensor]:
    """Log-mels (1, T, n_mels) and F0 (1, T)."""
    log_mels = log_mel(torch.from_numpy(speech(1, 1.0)), MEL)
    return log_mels[None], torch.where(torch.arange(len(log_mels)) % 30 < 20, 150.0, 0.0)[None]


def test_the_filters_have_the_derivative_of_their_definition() -> None:
    """Once more, by complex numbers and autograd; with exponents beyond both bounds."""
    torch.manual_seed(0)
    vocoder, (log_mels, f0) = Vocoder(VocoderConfig(width=8, blocks=1)).double(), heard()
    log_mels, f0, said = log_mels.double(), f0.double(), torch.randn(1, len(f0[0]), 2052, dtype=torch.float64)
    said[:, :, :1026] *= 3
    said.requires_grad_()
    buzz, noise = torch.randn(2, 1, (len(f0[0]) - 1) * 256, dtype=torch.float64)

    class Said(nn.Module):
        def forward(self, frames: torch.Tensor, voice: object) -> torch.Tensor:
            assert frames.shape == (1, len(f0[0]), 82)
            return said

    vocoder.network = Said()
    made = vocoder.filtered(log_mels, f0, buzz, noise)
    has = (f0 > 0)[..., None].double()
    envelope = (log_mels - vocoder.gain) @ vocoder.spread
    voiced, hiss, cosine, sine = said.chunk(4, -1)
    voiced = (envelope + 4 * voiced + (1 - has) * -16).clamp(-16, 8)
    hiss = (envelope + 4 * hiss - 1.5 * has).clamp(-16, 8)
    assert all(((part == -16) | (part == 8)).any() for part in (voiced, hiss))
    phases = torch.complex(1 + 4 * cosine, 4 * sine)
    level = vocoder.window.square().sum().sqrt()
    sources = [
        torch.stft(source, 1024, 256, window=vocoder.window, pad_mode="constant", return_complex=True) / level
        for source in (buzz, noise)
    ]
    filters = voiced.exp() * phases / phases.abs(), hiss.exp()
    total = sum(one.transpose(1, 2) * source for one, source in zip(filters, sources, strict=True))
    wanted = torch.istft(total, 1024, 256, window=vocoder.window, length=buzz.shape[1])
    torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-5)
    ahead = torch.randn_like(made)
    mine, theirs = (torch.autograd.grad(sound, said, ahead)[0] for sound in (made, wanted))
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6 * float(theirs.abs().max()))


@needs_bf16
def test_in_bf16_a_vocoder_says_nearly_the_same_in_float32() -> None:
    vocoder, (log_mels, f0) = load_vocoder(), heard()
    single = vocoder(log_mels, f0, torch.Generator().manual_seed(0))
    run_in_bf16(vocoder, CPU, True)
    half = vocoder(log_mels, f0, torch.Generator().manual_seed(0))
    assert half.dtype == vocoder.network(torch.randn(1, 3, 82)).dtype == torch.float32
    assert not torch.equal(single, half)
    assert float(((single - half).norm() / single.norm()).detach()) < 0.05
