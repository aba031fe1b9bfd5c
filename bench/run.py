"""`make bench`: is it quick? Ratios within one run, since absolute times say more of the machine than of the code; but for
what a command costs its user.

    python bench/run.py [--threads 1]

Each pair is timed in turn, A B A B …, and the median of the ratios is printed with its range.
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


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def ratios(ours: Callable[[], object], other: Callable[[], object], runs: int = 15) -> list[float]:
    """other's time over ours, pair by pair, after a warm-up: above 1 we are quicker."""
    for _ in range(2):
        ours()
        other()
    return [seconds(other) / seconds(ours) for _ in range(runs)]


def line(name: str, values: list[float], wanted: float, unit: str = "×", most: bool = False) -> bool:
    """Print their median, and return whether it is at least (or at `most`) what was wanted."""
    middle = statistics.median(values)
    fine = middle <= wanted if most else middle >= wanted
    span = f"{min(values):.2f}–{max(values):.2f}"
    print(f"{'ok  ' if fine else 'MISS'}  {name:<62} {middle:8.2f}{unit}  ({span}; wanted {wanted:g})")
    return fine


def lstm_flops(batch: int, steps: int, inputs: int, hidden: int) -> float:
    """Forward and backward of one direction: 3 · 2 · B · T · 4H(H + D)."""
    return 3 * 2 * batch * steps * 4 * hidden * (hidden + inputs)


def bench_training_step() -> bool:
    """FLOPs a second of a whole update (draw, forward, objective, backward, clip, Adam) against torch.mm 1024³."""
    from rwae_audio.model import RWAE, ModelConfig
    from rwae_audio.objectives import objective_settings
    from rwae_audio.objectives.rwae_mmd import RwaeMmd
    from rwae_audio.randomness import generator

    fine = True
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
        fine &= line(f"training step, LSTM {hidden}, {flops / 1e9:.1f} GFLOP, of torch.mm's rate", share, 50, " %")

        lstm, ahead = nn.LSTM(config.n_mels, hidden, batch_first=True), torch.ones(batch, steps, hidden)

        def alone(lstm=lstm, frames=frames, ahead=ahead) -> None:
            lstm(frames)[0].backward(ahead)

        flops = lstm_flops(batch, steps, config.n_mels, hidden)
        share = [100 * value * flops / reference for value in ratios(alone, multiply)]
        fine &= line(f"one LSTM {hidden} of it, forward and backward, of torch.mm's rate", share, 50, " %")
    return fine


def bench_lstm() -> bool:
    """The LSTMs as the model runs them against a Python loop of LSTMCells, forward and backward."""
    fine = True
    for batch in (1, 8, 32, 128):
        lstm, cell = nn.LSTM(80, 128, batch_first=True), nn.LSTMCell(80, 128)
        frames = torch.randn(batch, 20, 80)

        def whole(lstm=lstm, frames=frames) -> None:
            lstm(frames)[0].sum().backward()

        def loop(cell=cell, frames=frames) -> None:
            state, total = None, 0.0
            for t in range(frames.shape[1]):
                state = cell(frames[:, t], state)
                total = total + state[0].sum()
            total.backward()

        fine &= line(
            f"LSTM of 20 steps, batch {batch}, against LSTMCells", ratios(whole, loop), 1.3 if batch <= 32 else 1
        )
    return fine


def bench_frames() -> bool:
    """log_mel against librosa, both presets, 5 s at 16 kHz, on one thread."""
    import librosa

    from rwae_audio.data.features import PRESETS, log_mel

    rng = np.random.default_rng(0)
    sound = rng.standard_normal(80000).astype(np.float32) * 0.1
    waveform, fine = torch.from_numpy(sound), True
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name, mel in PRESETS.items():

        def theirs(mel=mel) -> None:
            mels = librosa.feature.melspectrogram(
                y=sound, sr=mel.sample_rate, n_fft=mel.n_fft, win_length=mel.win_length, hop_length=mel.hop_length,
                n_mels=mel.n_mels, fmin=mel.f_min, fmax=mel.f_max, power=mel.power, center=True, pad_mode="reflect",
            )  # fmt: skip
            np.log(np.maximum(mels, mel.floor))

        fine &= line(
            f"frames, preset {name}, against librosa", ratios(lambda mel=mel: log_mel(waveform, mel), theirs), 1.4
        )
    torch.set_num_threads(threads)
    return fine


def bench_eer() -> bool:
    """EER of 18,336 trials against SpeechBrain's."""
    from speechbrain.utils.metric_stats import EER

    from rwae_audio.evaluation.verification import eer

    rng = np.random.default_rng(0)
    target = np.arange(18336) < 672
    scores = rng.standard_normal(18336) + 2 * target
    positive, negative = torch.from_numpy(scores[target]), torch.from_numpy(scores[~target])
    return line(
        "EER of 18,336 trials, against SpeechBrain",
        ratios(lambda: eer(scores, target), lambda: EER(positive, negative), 3),
        100,
    )


def bench_long_list() -> bool:
    """rwae-eer of 600,000 trials of 144,000 vectors, as many as VoxCeleb1-H has: the whole command's time and memory."""
    rng = np.random.default_rng(0)
    speakers, each, half = 1190, 121, 300_000
    names = [f"id{10001 + i // each}/{i % each:05d}.wav" for i in range(speakers * each)]
    vectors = np.repeat(rng.standard_normal((speakers, 192), dtype=np.float32), each, axis=0)
    vectors += 2.5 * rng.standard_normal(vectors.shape, dtype=np.float32)
    enrol = rng.integers(len(names), size=2 * half)
    other = (enrol[:half] + rng.integers(1, each, size=half)) % each + enrol[:half] // each * each
    stranger = (enrol[half:] + each * rng.integers(1, speakers, size=half)) % len(names)
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/v.npz", **dict(zip(names, vectors, strict=True)))
        with open(f"{folder}/list.txt", "w") as file:
            for label, ours, theirs in ((1, enrol[:half], other), (0, enrol[half:], stranger)):
                file.writelines(f"{label} {names[a]} {names[b]}\n" for a, b in zip(ours, theirs, strict=True))
        words = ["--trials", f"{folder}/list.txt", "--embeddings", f"{folder}/v.npz"]
        began = time.perf_counter()
        memory = peak_memory([sys.executable, "-m", "rwae_audio.commands.eer", *words])
        spent = time.perf_counter() - began
    fine = line("rwae-eer, 600,000 trials with intervals", [spent], 20, " s", most=True)
    return line("its memory", [memory], 1024, " MiB", most=True) and fine


def peak_memory(words: list[str]) -> float:
    """Run a command without its output, and return the most memory that it held, in MiB.

    A small process starts it: on Linux, what starts a command counts among the command's memory.
    """
    code = (
        "import resource, subprocess as s, sys; s.run(sys.argv[1:], check=True, stdout=s.DEVNULL, stderr=s.DEVNULL); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True, text=True)
    return int(done.stdout) / (2**20 if sys.platform == "darwin" else 2**10)


def bench_conversion() -> bool:
    """rwae-vc, 10 s of noise in bursts: its work against real time, the vocoder against Griffin-Lim, the command itself; and
    the memory that an hour takes."""
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
    work = [seconds(convert) for _ in range(5)]
    fine = line("conversion of 10 s, of real time", [value / 10 for value in work], 0.1, most=True)
    against = ratios(lambda: vocode(vocoder, frames, contour), lambda: griffin_lim(frames, vocoder.mel), 5)
    fine &= line("the neural vocoder, 10 s, against Griffin-Lim", against, 1)
    with tempfile.TemporaryDirectory() as folder:
        soundfile.write(f"{folder}/a.wav", sound, 16000)
        whole = [sys.executable, "-m", "rwae_audio.commands.vc", f"{folder}/a.wav", f"{folder}/a.wav", "--force"]
        above = []
        for _ in range(5):
            libraries = seconds(lambda: subprocess.run([sys.executable, "-c", "import torch, torchaudio"], check=True))
            made = seconds(lambda: subprocess.run([*whole, "-o", f"{folder}/b.wav"], check=True, capture_output=True))
            above.append(made - libraries - statistics.median(work))
        soundfile.write(f"{folder}/hour.wav", np.tile(sound, 360), 16000)
        memory = peak_memory([*whole[:3], f"{folder}/hour.wav", f"{folder}/a.wav", "-o", f"{folder}/c.wav"])
    fine &= line("rwae-vc, an hour in one file: its memory", [memory], 2048, " MiB", most=True)
    fine &= line("rwae-vc above its work and `import torch, torchaudio`", above, 1, " s", most=True)
    for option in ("--help", "--version"):
        words = [*whole[:3], option]
        asked = [seconds(lambda words=words: subprocess.run(words, check=True, capture_output=True)) for _ in range(5)]
        fine &= line(f"rwae-vc {option}", asked, 0.3, " s", most=True)
    return fine


def bench_updates() -> bool:
    """Whole updates in bfloat16 against float32 on this CPU, and on a GPU, where these are."""
    import training

    fine, wanted = True, {"converter": 1.5, "rwae-plus": 1.5, "rwae-mmd": 1.3}
    for name, values in training.precisions().items():
        fine &= line(f"an update of {name} in bf16, against float32", values, wanted[name])
    for name, found in training.gpu().items():
        shown = f"{found['rate']:.1f} updates a second, no kernel in {found['waits']:.0%} of the time"
        print(f"      {name} on {torch.cuda.get_device_name()}: {shown}, {found['ratio']:.0f} CPU cores")
    if not torch.cuda.is_available():
        print("      no CUDA device: updates on a GPU are not measured")
    return fine


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, help="CPU threads (all cores)")
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
