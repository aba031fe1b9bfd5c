"""Serve a page to try the converter, for browsers on this machine alone. Convert a voice only with its owner's consent."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rwae_audio.commands.common import DEVICE_HELP, Parser, guarded, say
from rwae_audio.files import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from rwae_audio.conversion.converter import Converter
    from rwae_audio.conversion.reading import Reading
    from rwae_audio.data.features import MelConfig
    from rwae_audio.inference.bundle import Bundle

NAME = "rwae-demo"
HOST = "127.0.0.1"
UPLOAD = "50mb"  # the largest upload, as gradio writes it
LONGEST = 180.0  # seconds of a recording
SHOWN = 10.0  # seconds of a recording in the picture
SWEEP, AGE = 60, 1800  # seconds between two looks for old files, and seconds after which a file is old
DPI = 150  # of pictures
RANGE = 70.0  # dB of the log-mels in the picture
KILOHERTZ = (0.5, 1, 2, 4, 8)  # ticks of log-mels
PITCHES = (75, 100, 150, 200, 300, 400)  # ticks of F0, Hz
WORDS, PAUSE = 5, 0.1  # pictures of words in a row, and seconds between two words
ALL = "all"  # the choice of every action
INTRODUCTION = """
# rwae-audio

**What the source says, in the voice of the target.** A few seconds of clear speech are enough. The sound never leaves this
machine: recordings are deleted after half an hour, and when `rwae-demo` ends.
"""
GENERATION = """
# Speech from the priors alone

The model learned words without labels, so its actions have numbers, and your ear has to tell the words. A voice is a draw of
the static code, and a take a draw of the dynamic codes. Griffin-Lim makes a whispered sound of them.
"""
CONSENT = "Everyone whose voice is heard here consents, and I will say that the result is synthetic."


class Order(NamedTuple):
    """The choices that a user makes on the page.

    Attributes:
        source, target, second: Files with recordings, or None. The second target may be missing.
        position: Where the voice lies between both targets, from 0 to 1.
        pitch: `target` or `keep`, as in `Converter.convert`.
        vocoder: The name of a vocoder.
        consent: Whether the box of consent is ticked.
    """

    source: str | None
    target: str | None
    second: str | None = None
    position: float = 0.5
    pitch: str = "target"
    vocoder: str = "neural"
    consent: bool = False


class Answer(NamedTuple):
    """The results that the page shows.

    Attributes:
        sound: Sample rate in Hz and samples (N,), int16, or None.
        figure: The picture, or None.
        text: A report, or one line that says what is wrong.
    """

    sound: tuple[int, np.ndarray] | None
    figure: Figure | None
    text: str


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(
        prog=NAME,
        description=__doc__,
        epilog="Recordings lie in a private temporary folder, which Ctrl-C deletes with the page. Needs the extra `demo`.",
    )
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="a trained model (default: the one in the package)")
    parser.add_argument("--device", default="cpu", help=DEVICE_HELP)
    vocoders = ("neural", "griffin-lim", "hifigan")
    parser.add_argument("--vocoder", choices=vocoders, help="the one chosen at first (default: as rwae-vc has it)")
    parser.add_argument("--digits", type=Path, metavar="BUNDLE", help="a model of recipes/digits, for a second tab")
    parser.add_argument("--port", type=int, default=7860, help=f"the port on {HOST} (default: 7860)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    return guarded(lambda: serve(options), NAME)


def serve(options: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C or SIGTERM. Raises InputError before anything is served."""
    if not 1 <= options.port <= 65535:
        raise InputError(f"--port {options.port}; expected 1 to 65535")
    converters = the_converters(options.bundle, options.device, options.vocoder)
    digits = None if options.digits is None else the_digits(options.digits)
    with private_folder():
        blocks = page(converters, digits)
        launch(blocks, options.port)
        say(NAME, f"the page is at http://{HOST}:{options.port} until Ctrl-C, which deletes all recordings")
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
        blocks.close(verbose=False)
    say(NAME, "ended; all recordings are deleted")
    return 0


@contextlib.contextmanager
def private_folder() -> Iterator[None]:
    """Send this process's temporary files into a new folder that no other user can read, and delete it at the end.

    gradio's variables leave the environment, since some of them share the page or keep a history of it.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores SIGHUP
            signal.signal(number, signal.default_int_handler)  # which raises KeyboardInterrupt
    with tempfile.TemporaryDirectory(prefix=f"{NAME}-", ignore_cleanup_errors=True) as folder:
        for name in [name for name in os.environ if name.startswith("GRADIO_")]:
            del os.environ[name]
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False", "GRADIO_TEMP_DIR": folder}
        tempfile.tempdir = folder
        yield


def gradio() -> Any:
    """Return gradio. Raises InputError where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Couldn't find ff")  # ffmpeg, which nothing here needs
            import gradio
    except ImportError as error:
        raise InputError(
            f"gradio cannot be imported ({error}); expected it for the page: pip install 'rwae-audio[demo]'"
        ) from error
    return gradio


def the_converters(bundle: Path | None, device: str, vocoder: str | None) -> dict[str, Converter]:
    """Return a converter for each vocoder that fits the bundle, by the vocoder's name; the wanted one comes first.

    Raises InputError when the bundle or the wanted vocoder cannot be loaded.
    """
    from rwae_audio.conversion.converter import Converter
    from rwae_audio.conversion.vocoders import new_vocoder

    first = Converter.load(bundle, device, vocoder)
    converters = {first.vocoder.name: first}
    for name in ("neural", "griffin-lim"):
        if name not in converters:
            with contextlib.suppress(InputError):  # the neural one reads log-mels of one kind
                converters[name] = Converter(first.bundle, new_vocoder(name, first.bundle.config.mel, device))
    return converters


def the_digits(folder: Path) -> Bundle:
    """Return a bundle with actions. Raises InputError for any other."""
    from rwae_audio.inference.bundle import load_bundle

    if not (bundle := load_bundle(folder)).config.model.actions:
        raise InputError(f"--digits {folder} has no actions; expected a bundle of recipes/digits, trained with actions")
    return bundle


def answered(function: Callable[..., Answer], *values: Any) -> Answer:
    """Call a function of the page, and answer with one line where it raises InputError."""
    try:
        return function(*values)
    except InputError as error:
        text = " ".join(str(error).split())
        return Answer(None, None, text[:1].upper() + text[1:])


def convert(converters: Mapping[str, Converter], order: Order) -> Answer:
    """Convert a source into the voice of a target, or into one between two targets.

    Raises:
        InputError: Without consent, and for a recording that is missing, silent, too short, too long or cannot be read.
    """
    from rwae_audio.conversion.reading import read_file
    from rwae_audio.conversion.voice import between, voice_of

    if not order.consent:
        raise InputError("the box of consent is not ticked; expected the consent of everyone whose voice is used")
    converter = converters[order.vocoder]
    bundle, mel = converter.bundle, converter.bundle.config.mel
    source, target = recording(order.source, "source", mel), recording(order.target, "target", mel)
    readings = {"source": source, "conversion": source, "target": target}  # in the order of the picture
    moves = converter.vocoder.takes_pitch and order.pitch == "target"
    voice = voice_of(bundle, target, moves)
    if order.second:
        readings["second target"] = second = recording(order.second, "second target", mel)
        voice = between(voice, voice_of(bundle, second, moves), order.position)
    notes = [f"{name}: {note}" for name, reading in readings.items() if name != "conversion" for note in reading.notes]
    if moves and voice.register is None:
        notes.append("no pitch is known of the target; the source's is left")
    with tempfile.TemporaryDirectory() as folder:
        converter.convert_file(source, path := Path(folder) / "conversion.wav", voice, pitch=order.pitch)
        readings["conversion"] = read_file(path, mel, silence=True)
    samples = np.concatenate([*readings["conversion"].samples()])
    notes.insert(
        0, f"Converted {len(samples) / mel.sample_rate:.1f} s. The sound is synthetic: say so where you share it."
    )
    return Answer((converter.sample_rate, sixteen_bits(samples)), picture(readings), "\n".join(notes))


def recording(path: str | None, name: str, mel: MelConfig) -> Reading:
    """Read a recording of the page. Raises InputError, which says which of them it is."""
    from rwae_audio.conversion.reading import read_file
    from rwae_audio.data.audio import duration

    if not path:
        raise InputError(f"the {name} is missing; expected a recording or a file of speech")
    try:
        if (seconds := duration(path)) > LONGEST:
            raise InputError(f"{path} lasts {seconds:.1f} s; expected at most {LONGEST:g} s")
        return read_file(path, mel)
    except InputError as error:  # the folder says nothing to the user
        raise InputError(f"{name}: {str(error).replace(path, Path(path).name)}") from error


def sixteen_bits(samples: np.ndarray) -> np.ndarray:
    """Return samples (N,) of full scale ±1 as int16; they are scaled down where they would clip."""
    return np.round(32767 * samples / max(1.0, float(np.abs(samples).max(initial=0)))).astype(np.int16)


def picture(readings: Mapping[str, Reading]) -> Figure:
    """Draw the log-mels and the F0 of recordings, a column each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.7 * len(readings), 4.4), dpi=DPI, layout="constrained")
    axes = figure.subplots(2, len(readings), sharex="col", sharey="row", squeeze=False, height_ratios=(3, 2))
    mel = next(iter(readings.values())).mel
    shown = round(SHOWN * mel.sample_rate / mel.hop_length)
    frames = {name: np.concatenate([*reading.log_mels()])[:shown] for name, reading in readings.items()}
    highest = max(decibels(part, mel).max() for part in frames.values())
    for i, (name, reading) in enumerate(readings.items()):
        image = draw_frames(axes[0, i], frames[name], mel, highest)
        axes[0, i].set_title(f"{name}, first {SHOWN:.0f} s" if reading.level.count > SHOWN * mel.sample_rate else name)
        draw_f0(axes[1, i], reading, len(frames[name]))
    axes[0, 0].set_ylabel("frequency, kHz")
    axes[1, 0].set_ylabel("F0, Hz")
    figure.colorbar(image, ax=axes[0, :].tolist(), label="level, dB", pad=0.01)
    return figure


def decibels(frames: np.ndarray, mel: MelConfig) -> np.ndarray:
    """Return log-mels (T, n_mels) as levels in dB."""
    return 20 / mel.power * np.log10(np.e) * frames


def draw_frames(axes: Axes, frames: np.ndarray, mel: MelConfig, highest: float) -> Any:
    """Draw log-mels (T, n_mels), RANGE dB up to `highest`, and return the image."""
    from rwae_audio.data.features import bin_positions

    seconds = len(frames) * mel.hop_length / mel.sample_rate
    look: dict[str, Any] = {"extent": (0, seconds, -0.5, mel.n_mels - 0.5), "vmin": highest - RANGE, "vmax": highest}
    image = axes.imshow(decibels(frames, mel).T, origin="lower", aspect="auto", cmap="magma", **look)
    ticks = [tick for tick in KILOHERTZ if tick < mel.f_max / 1000]
    axes.set_yticks(bin_positions(1000 * np.array(ticks), mel), [f"{tick:g}" for tick in ticks])
    return image


def draw_f0(axes: Axes, reading: Reading, count: int) -> None:
    """Draw the first `count` frames of F0, and the median of the whole recording."""
    from rwae_audio.conversion.pitch import HIGHEST, LOWEST

    f0 = reading.f0.numpy()[:count]
    times = np.arange(len(f0)) * reading.mel.hop_length / reading.mel.sample_rate
    axes.plot(times, np.where(f0 > 0, f0, np.nan), color="C0", linewidth=1.6)
    if (register := reading.register) is not None:
        median = float(np.exp(register.mean))
        axes.axhline(median, color="C1", linestyle="--", linewidth=1.2)
        axes.set_title(f"median {median:.0f} Hz", loc="right", fontsize=10, color="C1")
    axes.set(yscale="log", ylim=(LOWEST, HIGHEST), xlabel="time, s")
    axes.set_yticks(PITCHES, map(str, PITCHES))
    axes.set_yticks([], minor=True)
    axes.grid(color="0.92")


def generate(bundle: Bundle, action: str, voice: float, take: float) -> Answer:
    """Say one action, or all of them, in a voice from the prior.

    Args:
        action: The number of an action, or ALL.
        voice: The seed of the static code.
        take: The seed of the dynamic codes.
    """
    import torch
    from matplotlib.figure import Figure

    from rwae_audio.conversion.vocoders.griffin_lim import griffin_lim
    from rwae_audio.inference.generation import log_mels
    from rwae_audio.randomness import generator

    mel, count = bundle.config.mel, bundle.config.model.actions
    static = torch.randn(1, bundle.config.model.static_dim, generator=generator(int(voice), "voice"))
    several = mel.segment, generator(int(take), "take"), static.repeat(count, 1), torch.arange(count)
    words = log_mels(bundle.normaliser, bundle.model.sample(count, *several))
    heard = range(count) if action == ALL else [int(action)]
    pause = np.zeros(round(PAUSE * mel.sample_rate), dtype=np.float32)
    sounds = [part for i in heard for part in (griffin_lim(words[i], mel, seed=int(take)).numpy(), pause)]
    rows = -(-count // WORDS)
    figure = Figure(figsize=(11, 2.2 * rows), dpi=DPI, layout="constrained")
    axes = figure.subplots(rows, WORDS, sharex=True, sharey=True, squeeze=False).ravel()
    for i in range(count):
        draw_frames(axes[i], words[i].numpy(), mel, decibels(words.numpy(), mel).max())
        axes[i].set_title(f"action {i}", fontsize=10, fontweight="bold" if i in heard else "normal")
    for unused in axes[count:]:
        unused.set_axis_off()
    figure.supxlabel("time, s")
    figure.supylabel("frequency, kHz")
    text = f"Action: {action}; voice: {voice:.0f}; take: {take:.0f}. The sound is synthetic."
    return Answer((mel.sample_rate, sixteen_bits(np.concatenate(sounds))), figure, text)


def page(converters: Mapping[str, Converter], digits: Bundle | None = None) -> Any:
    """Return the page as gradio's Blocks."""
    gr = gradio()
    with gr.Blocks(title="rwae-audio", analytics_enabled=False, delete_cache=(SWEEP, AGE)) as blocks:
        with contextlib.nullcontext() if digits is None else gr.Tab("Convert"):
            conversion_tab(converters)
        if digits is not None:
            with gr.Tab("Generate"):
                generation_tab(digits)
    return blocks


def conversion_tab(converters: Mapping[str, Converter]) -> None:
    """Put the widgets of conversions on the page."""
    gr = gradio()
    gr.Markdown(INTRODUCTION)
    with gr.Row():
        source = gr.Audio(label="Source: what is said", type="filepath", elem_id="source", buttons=[])
        target = gr.Audio(label="Target: the voice", type="filepath", elem_id="target", buttons=[])
    with gr.Accordion("A second target, and voices between the two", open=False), gr.Row():
        second = gr.Audio(label="Second target", type="filepath", elem_id="second", buttons=[])
        position = gr.Slider(0, 1, value=0.5, step=0.05, label="From the target (0) to the second target (1)")
    with gr.Row():
        pitches = [("moved to the target's range", "target"), ("kept as in the source", "keep")]
        pitch = gr.Radio(pitches, value="target", label="Pitch (neural vocoder)")
        vocoder = gr.Radio(list(converters), value=next(iter(converters)), label="Vocoder")
    consent = gr.Checkbox(label=CONSENT, elem_id="consent", container=False)
    button = gr.Button("Convert", variant="primary", elem_id="convert")
    text = gr.Textbox(label="Report", elem_id="report", interactive=False, lines=1, max_lines=6)
    sound = gr.Audio(label="Conversion", elem_id="conversion", interactive=False, buttons=["download"])
    figure = gr.Plot(show_label=False, format="png", elem_id="picture")
    asked = [source, target, second, position, pitch, vocoder, consent]
    button.click(lambda *values: answered(convert, converters, Order(*values)), asked, [sound, figure, text])


def generation_tab(bundle: Bundle) -> None:
    """Put the widgets of generated speech on the page."""
    gr = gradio()
    gr.Markdown(GENERATION)
    action = gr.Radio([ALL, *map(str, range(bundle.config.model.actions))], value=ALL, label="Action")
    with gr.Row():
        voice = gr.Slider(0, 99, value=0, step=1, label="Voice")
        take = gr.Slider(0, 99, value=0, step=1, label="Take")
    button = gr.Button("Generate", variant="primary", elem_id="generate")
    text = gr.Textbox(label="Report", interactive=False)
    sound = gr.Audio(label="Sound", elem_id="generated", interactive=False, buttons=["download"])
    figure = gr.Plot(show_label=False, format="png")
    button.click(partial(answered, generate, bundle), [action, voice, take], [sound, figure, text])


def launch(blocks: Any, port: int) -> None:
    """Start the server, which answers this machine alone. Raises InputError when the port is taken."""
    off = dict.fromkeys(("share", "ssr_mode", "mcp_server", "pwa", "enable_monitoring"), False)
    theme = gradio().themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])  # fonts of this machine
    settings = {"theme": theme, "footer_links": [], "max_file_size": UPLOAD, "prevent_thread_lock": True, "quiet": True}
    try:
        blocks.launch(server_name=HOST, server_port=port, **off, **settings)
    except OSError as error:
        raise InputError(f"--port {port} cannot be served on {HOST}; expected a free port") from error


if __name__ == "__main__":
    sys.exit(main())
