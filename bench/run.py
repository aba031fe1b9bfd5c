"""Run all benchmarks (`make bench`): speed in comparison with other libraries, and the time and memory of commands.

    python bench/run.py [--threads 1]

Comparisons are ratios, since absolute times depend on the machine. Two functions are timed in turn, A B A B …, and the
median of the ratios is printed with its range.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn


def seconds(function: Callable[[], object]) -> float:
    """Return the time of a function call in seconds."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def ratios(ours: Callable[[], object], other: Callable[[], object], runs: int = 15) -> list[float]:
    """Return ratios of the time of another function to the time of our function; more than 1 if ours is faster.

    Args:
        ours: The function that is benchmarked.
        other: The function with which it is compared.
        runs: The number of ratios.
    """
    for _ in range(2):  # warm-up
        ours()
        other()
    return [seconds(other) / seconds(ours) for _ in range(runs)]


def report(name: str, values: list[float], goal: float, unit: str = "×", at_most: bool = False) -> bool:
    """Print the median of measured values, and return whether it meets the goal.

    Args:
        name: The name of the benchmark.
        values: The measured values.
        goal: The smallest good median.
        unit: The unit of the values.
        at_most: Whether the goal is the largest good median instead.
    """
    median = statistics.median(values)
    met = median <= goal if at_most else median >= goal
    span = f"{min(values):.2f}–{max(values):.2f}"
    print(f"{'ok  ' if met else 'MISS'}  {name:<62} {median:8.2f}{unit}  ({span}; goal {goal:g})")
    return met


def lstm_flops(batch: int, steps: int, inputs: int, hidden: int) -> float:
    """Return the floating-point operations of an LSTM, forward and backward: 3 · 2 · B · T · 4H(H + D).

    Args:
        batch: The number B of sequences.
        steps: The number T of steps.
        inputs: The number D of input dimensions.
        hidden: The number H of hidden dimensions.
    """
    return 3 * 2 * batch * steps * 4 * hidden * (hidden + inputs)


def bench_training_step() -> bool:
    """Compare the FLOP rate of an update (forward, objective, backward, clipping, Adam) with that of torch.mm."""
    from rwae_audio.model import RWAE, ModelConfig
    from rwae_audio.objectives import objective_settings
    from rwae_audio.objectives.rwae_mmd import RwaeMmd
    from rwae_audio.randomness import generator

    met = True
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    for hidden in (128, 256):
        config = ModelConfig(static_hidden=hidden, dynamic_hidden=hidden, prior_hidden=hidden, decoder_hidden=hidden)
        batch, steps = 128, 20
        model = RWAE(config)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        frames = torch.randn(batch, steps, config.n_mels)
        static_frames = torch.randn(batch, config.static_window, config.n_mels)

        def update(model=model, optimizer=optimizer, frames=frames, static_frames=static_frames) -> None:
            output = model(frames, static_frames, generator(0, "posterior"))
            terms = RwaeMmd(objective_settings(), model.config)(model, output, frames, generator(0, "prior"))
            optimizer.zero_grad()
            sum(terms.values()).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 50.0)
            optimizer.step()

        window = config.static_window // config.static_stride
        flops = (
            lstm_flops(batch, window, config.n_mels, hidden)
            + lstm_flops(batch, steps, config.n_mels, hidden)
            + lstm_flops(batch, steps, hidden, hidden)
            + lstm_flops(batch, steps, config.dynamic_dim, hidden)
            + lstm_flops(batch, steps, config.static_dim + config.dynamic_dim, hidden)
        )
        multiplications = 20
        reference = 2 * 1024**3 * multiplications

        def multiply(times=multiplications) -> None:
            for _ in range(times):
                torch.mm(a, b)

        share = [100 * value * flops / reference for value in ratios(update, multiply)]
        met &= report(f"training step, LSTM {hidden}, {flops / 1e9:.1f} GFLOP, of torch.mm's rate", share, 50, " %")

        lstm, gradient = nn.LSTM(config.n_mels, hidden, batch_first=True), torch.ones(batch, steps, hidden)

        def one_lstm(lstm=lstm, frames=frames, gradient=gradient) -> None:
            lstm(frames)[0].backward(gradient)

        flops = lstm_flops(batch, steps, config.n_mels, hidden)
        share = [100 * value * flops / reference for value in ratios(one_lstm, multiply)]
        met &= report(f"one LSTM {hidden} of it, forward and backward, of torch.mm's rate", share, 50, " %")
    return met


def bench_lstm() -> bool:
    """Compare an LSTM with a Python loop of LSTMCells, forward and backward."""
    met = True
    for batch in (1, 8, 32, 128):
        lstm, cell = nn.LSTM(80, 128, batch_first=True), nn.LSTMCell(80, 128)
        frames = torch.randn(batch, 20, 80)

        def layer(lstm=lstm, frames=frames) -> None:
            lstm(frames)[0].sum().backward()

        def loop(cell=cell, frames=frames) -> None:
            state, total = None, 0.0
            for t in range(frames.shape[1]):
                state = cell(frames[:, t], state)
                total = total + state[0].sum()
            total.backward()

        goal = 1.3 if batch <= 32 else 1
        met &= report(f"LSTM of 20 steps, batch {batch}, against LSTMCells", ratios(layer, loop), goal)
    return met


def bench_frames() -> bool:
    """Compare log_mel with librosa, for both presets and 5 s at 16 kHz, on one thread."""
    import librosa

    from rwae_audio.data.features import PRESETS, log_mel

    rng = np.random.default_rng(0)
    sound = rng.standard_normal(80000).astype(np.float32) * 0.1
    waveform, met = torch.from_numpy(sound), True
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name, mel in PRESETS.items():

        def by_librosa(mel=mel) -> None:
            mels = librosa.feature.melspectrogram(
                y=sound, sr=mel.sample_rate, n_fft=mel.n_fft, win_length=mel.win_length, hop_length=mel.hop_length,
                n_mels=mel.n_mels, fmin=mel.f_min, fmax=mel.f_max, power=mel.power, center=True, pad_mode="reflect",
            )  # fmt: skip
            np.log(np.maximum(mels, mel.floor))

        values = ratios(lambda mel=mel: log_mel(waveform, mel), by_librosa)
        met &= report(f"frames, preset {name}, against librosa", values, 1.4)
    torch.set_num_threads(threads)
    return met


def bench_eer() -> bool:
    """Compare the EER of 18,336 trials with SpeechBrain's."""
    from speechbrain.utils.metric_stats import EER

    from rwae_audio.evaluation.verification import eer

    rng = np.random.default_rng(0)
    target = np.arange(18336) < 672
    scores = rng.standard_normal(18336) + 2 * target
    positive, negative = torch.from_numpy(scores[target]), torch.from_numpy(scores[~target])
    values = ratios(lambda: eer(scores, target), lambda: EER(positive, negative), 3)
    return report("EER of 18,336 trials, against SpeechBrain", values, 100)


def bench_long_list() -> bool:
    """Measure time and memory of rwae-eer for 600,000 trials of 144,000 embeddings, the size of VoxCeleb1-H."""
    rng = np.random.default_rng(0)
    speakers, utterances, half = 1190, 121, 300_000
    names = [f"id{10001 + i // utterances}/{i % utterances:05d}.wav" for i in range(speakers * utterances)]
    vectors = np.repeat(rng.standard_normal((speakers, 192), dtype=np.float32), utterances, axis=0)
    vectors += 2.5 * rng.standard_normal(vectors.shape, dtype=np.float32)
    enrol = rng.integers(len(names), size=2 * half)
    shift = rng.integers(1, utterances, size=half)
    same_speaker = (enrol[:half] + shift) % utterances + enrol[:half] // utterances * utterances
    other_speaker = (enrol[half:] + utterances * rng.integers(1, speakers, size=half)) % len(names)
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/v.npz", **dict(zip(names, vectors, strict=True)))
        with open(f"{folder}/list.txt", "w") as file:
            for label, first, second in ((1, enrol[:half], same_speaker), (0, enrol[half:], other_speaker)):
                file.writelines(f"{label} {names[a]} {names[b]}\n" for a, b in zip(first, second, strict=True))
        words = ["--trials", f"{folder}/list.txt", "--embeddings", f"{folder}/v.npz"]
        began = time.perf_counter()
        memory = peak_memory([sys.executable, "-m", "rwae_audio.commands.eer", *words])
        duration = time.perf_counter() - began
    met = report("rwae-eer, 600,000 trials with intervals", [duration], 20, " s", at_most=True)
    return report("its memory", [memory], 1024, " MiB", at_most=True) and met


def peak_memory(words: list[str]) -> float:
    """Run a command without its output, and return its peak memory in MiB.

    A small process starts the command, since Linux includes the memory of the starting process.
    """
    code = (
        "import resource, subprocess as s, sys; s.run(sys.argv[1:], check=True, stdout=s.DEVNULL, stderr=s.DEVNULL); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True, text=True)
    return int(done.stdout) / (2**20 if sys.platform == "darwin" else 2**10)


def bench_conversion() -> bool:
    """Measure rwae-vc on noise in bursts: the conversion, the vocoder, the whole command, and the memory for an hour."""
    import soundfile

    from rwae_audio.conversion.converter import Converter
    from rwae_audio.conversion.vocoders.griffin_lim import griffin_lim
    from rwae_audio.conversion.vocoders.neural import load_vocoder, vocode

    rng = np.random.default_rng(0)
    sound = (0.1 * rng.standard_normal(160000) * (np.sin(np.arange(160000) / 3000) > -0.5)).astype(np.float32)
    converter, vocoder = Converter.load(), load_vocoder()
    frames = converter.bundle.frames(sound)
    contour = torch.full((len(frames),), 120.0)

    def convert() -> object:
        return converter.convert(sound, 16000, converter.voice(sound, 16000))

    convert()
    durations = [seconds(convert) for _ in range(5)]
    met = report("conversion of 10 s, of real time", [value / 10 for value in durations], 0.1, at_most=True)
    values = ratios(lambda: vocode(vocoder, frames, contour), lambda: griffin_lim(frames, vocoder.mel), 5)
    met &= report("the neural vocoder, 10 s, against Griffin-Lim", values, 1)
    with tempfile.TemporaryDirectory() as folder:
        soundfile.write(f"{folder}/a.wav", sound, 16000)
        command = [sys.executable, "-m", "rwae_audio.commands.vc", f"{folder}/a.wav", f"{folder}/a.wav", "--force"]
        extra = []  # seconds of the command besides the conversion and the imports
        for _ in range(5):
            imports = seconds(lambda: subprocess.run([sys.executable, "-c", "import torch, torchaudio"], check=True))
            total = seconds(
                lambda: subprocess.run([*command, "-o", f"{folder}/b.wav"], check=True, capture_output=True)
            )
            extra.append(total - imports - statistics.median(durations))
        soundfile.write(f"{folder}/hour.wav", np.tile(sound, 360), 16000)
        memory = peak_memory([*command[:3], f"{folder}/hour.wav", f"{folder}/a.wav", "-o", f"{folder}/c.wav"])
    met &= report("rwae-vc, an hour in one file: its memory", [memory], 2048, " MiB", at_most=True)
    met &= report("rwae-vc besides conversion and `import torch, torchaudio`", extra, 1, " s", at_most=True)
    for option in ("--help", "--version"):
        words = [*command[:3], option]
        times = [seconds(lambda words=words: subprocess.run(words, check=True, capture_output=True)) for _ in range(5)]
        met &= report(f"rwae-vc {option}", times, 0.3, " s", at_most=True)
    return met


def bench_updates() -> bool:
    """Compare whole updates in bfloat16 with float32 on a CPU with bfloat16, and measure updates on a GPU."""
    import training

    met, goals = True, {"converter": 1.5, "rwae-plus": 1.5, "rwae-mmd": 1.3}
    for name, values in training.precisions().items():
        met &= report(f"an update of {name} in bf16, against float32", values, goals[name])
    for name, measures in training.gpu().items():
        rate = f"{measures['rate']:.1f} updates a second, no kernel in {measures['waits']:.0%} of the time"
        print(f"      {name} on {torch.cuda.get_device_name()}: {rate}, {measures['ratio']:.0f} CPU cores")
    if not torch.cuda.is_available():
        print("      no CUDA device: updates on a GPU are not measured")
    return met


def main() -> int:
    """Run all benchmarks, and return 0 if all goals are met, otherwise 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, metavar="N", help="the number of CPU threads (default: all cores)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    benches = (
        bench_training_step,
        bench_updates,
        bench_lstm,
        bench_frames,
        bench_eer,
        bench_long_list,
        bench_conversion,
    )
    results = [bench() for bench in benches]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
