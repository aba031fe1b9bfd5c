"""rwae-vc: say what SOURCE says in the voice of TARGET (only with the consent of the voice's owner)."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rwae_audio.commands.common import DEVICE_HELP, Parser, beyond_full_scale, free_output, guarded, say, say_notes
from rwae_audio.files import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from rwae_audio.conversion.pitch import Register
    from rwae_audio.conversion.vocoders.hifigan import Hifigan
    from rwae_audio.conversion.vocoders.neural import Vocoder
    from rwae_audio.inference.bundle import Bundle

NAME = "rwae-vc"

Job = tuple[Path, Path]  # a recording, and what it becomes


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog=NAME,
        description=__doc__,
        epilog="Exit status: 0, or 1 when some files of a folder could not be converted (they are named), 2 for what was "
        "wrong from the start, 130 when interrupted. Streaming from a microphone is out of scope.",
    )
    parser.add_argument(
        "source", type=Path, metavar="SOURCE", help="a recording: its words are kept; or a folder of them"
    )
    parser.add_argument("targets", nargs="*", type=Path, metavar="TARGET", help="recordings of one speaker: the voice")
    parser.add_argument(
        "--voice", type=Path, metavar="FILE", help="the voice as rwae-embed saved it, instead of TARGET"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="OUT",
        help=".wav or .flac (<source>_as_<target>.wav); a folder for a folder",
    )
    parser.add_argument("--force", action="store_true", help="overwrite what is there")
    parser.add_argument("--skip-existing", action="store_true", help="leave what is there, and convert the rest")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="a trained bundle (the shipped one)")
    parser.add_argument("--device", default="cpu", help=DEVICE_HELP)
    parser.add_argument(
        "--vocoder",
        choices=("neural", "griffin-lim", "hifigan"),
        help="what makes sound of the frames (neural, where the bundle's frames are those it reads); hifigan's weights are "
        "fetched once, see recipes/voice_conversion",
    )
    parser.add_argument(
        "--pitch", choices=("target", "keep"), help="whose register the neural vocoder speaks in (the target's)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of what the vocoder draws (0)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout: what was done")
    options = parser.parse_args(argv)
    if options.voice and options.targets:
        parser.error(f"--voice stands in for TARGET; got {options.targets[0]} as well")
    if not (options.voice or options.targets):
        parser.error("expected TARGET recordings, or --voice FILE")
    if options.force and options.skip_existing:
        parser.error("--force overwrites what --skip-existing leaves; expected one of them")
    if options.pitch and options.vocoder in ("griffin-lim", "hifigan"):
        parser.error(f"--pitch {options.pitch} is for the neural vocoder; got --vocoder {options.vocoder}")
    return options


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    return guarded(lambda: convert(options), NAME)


def convert(options: argparse.Namespace) -> int:
    jobs, skipped = planned(options)

    from rwae_audio.inference.bundle import load_bundle

    bundle = load_bundle(options.bundle, options.device)
    vocoder = the_vocoder(bundle, options)
    voice, pitch = the_voice(bundle, options)
    done, failed, interrupted = convert_each(bundle, jobs, voice, options, vocoder, pitch)
    failed = sorted([*failed, *options.unreadable], key=lambda item: item["source"])
    for item in failed:
        say(NAME, item["reason"])  # which begins with the file's name
    if options.json:
        said = {
            "bundle": bundle.digest,
            "targets": [str(path) for path in options.targets],
            "voice": None if options.voice is None else str(options.voice),
            "sample_rate": bundle.sample_rate,
            "vocoder": options.vocoder,
            "pitch": options.pitch,
            "seed": options.seed,
            "converted": done,
            "skipped": [str(output) for output in skipped],
            "failed": failed,
        }
        print(json.dumps(said))
    if interrupted:
        say(NAME, f"interrupted: {len(done)} of {len(jobs)} files converted, nothing half written")
        return 130
    say_done(bundle, options, done)
    say_counts(options, done, skipped, failed)
    return 1 if failed else 0


# ---- what is to be done, checked before the model is loaded


def planned(options: argparse.Namespace) -> tuple[list[Job], list[Path]]:
    """What to convert into what, and the outputs that --skip-existing leaves. Raises InputError for whatever could
    overwrite, be lost or not be found."""
    for path in [*options.targets, *([options.voice] if options.voice else [])]:
        if not os.path.exists(path):
            raise InputError(f"{path} does not exist; expected a recording, or a file of rwae-embed for --voice")
    folder = os.path.isdir(options.source)
    jobs = folder_jobs(options) if folder else [file_job(options)]
    inputs = [options.source, *options.targets, *([options.voice] if options.voice else [])]
    refuse_clashes(jobs, inputs)
    there = [output for _, output in jobs if os.path.isfile(output)]
    if options.skip_existing:
        left = set(there)
        return [job for job in jobs if job[1] not in left], there
    if there and folder and not options.force:
        raise InputError(
            f"{len(there)} of {len(jobs)} files are in {options.output} already, the first {there[0]}; "
            "expected another folder, --skip-existing or --force"
        )
    return jobs, []


def file_job(options: argparse.Namespace) -> Job:
    options.unreadable = []
    if not os.path.exists(options.source):
        raise InputError(f"{options.source} does not exist; expected a recording, or a folder of them")
    output = options.output or Path(f"{options.source.stem}_as_{voice_name(options)}.wav")
    if output.suffix.lower() not in (".wav", ".flac"):
        raise InputError(f"--output {output}; expected a name that ends in .wav or .flac")
    free_output(output, options.force or options.skip_existing)
    return options.source, output


def folder_jobs(options: argparse.Namespace) -> list[Job]:
    """Each recording below SOURCE, and the .wav of its name at the same place below OUT.

    options.unreadable becomes the recordings that need PyAV where it is not installed, with the reason;
    options.left_out becomes the number of other files.
    """
    from rwae_audio.data.corpora.base import EXTRA_SUFFIXES, SUFFIXES, audio_files

    source = options.source
    options.output = options.output or Path(f"{source.resolve().name}_as_{voice_name(options)}")
    output = options.output
    if output.suffix.lower() in (".wav", ".flac") or (os.path.exists(output) and not os.path.isdir(output)):
        raise InputError(f"--output {output} is a file's name; expected a folder, as SOURCE is one")
    if not os.path.isdir(output.parent):
        raise InputError(f"the folder {output.parent} does not exist; expected one to make {output.name} in")
    if output.resolve().is_relative_to(source.resolve()):
        raise InputError(f"--output {output} lies in SOURCE {source}; expected a folder elsewhere")
    names = sorted(name for _, name in audio_files(source, SUFFIXES + EXTRA_SUFFIXES))
    others = {Path(place, name) for place, _, files in os.walk(source) for name in files} - {source / n for n in names}
    if not names:
        raise InputError(f"{source} has no recordings ({len(others)} other files); expected {', '.join(SUFFIXES)}")
    options.left_out = len(others)
    options.unreadable = unreadable([source / name for name in names])
    failed = {item["source"] for item in options.unreadable}
    return [(source / n, (output / n).with_suffix(".wav")) for n in names if str(source / n) not in failed]


def unreadable(paths: list[Path]) -> list[dict[str, str]]:
    """The files that are recordings by their names but for which PyAV is missing, each with the reason."""
    from rwae_audio.data.audio import open_audio
    from rwae_audio.data.corpora.base import readable_suffixes

    failed = []
    for path in paths:
        if path.suffix.lower() not in readable_suffixes():
            try:
                open_audio(path)
            except InputError as error:
                failed.append({"source": str(path), "reason": str(error)})
    return failed


def voice_name(options: argparse.Namespace) -> str:
    return (options.voice or options.targets[0]).stem


def refuse_clashes(jobs: list[Job], inputs: list[Path]) -> None:
    """Raises InputError when two outputs are one, or an output is one of the files that are read."""
    made: dict[Path, Path] = {}
    read = {identity(path) for path in [*inputs, *(source for source, _ in jobs)]}
    for source, output in jobs:
        if output in made:
            raise InputError(f"{made[output]} and {source} would both become {output}; expected names that differ")
        made[output] = source
        if os.path.isdir(output):
            raise InputError(f"{output} is a folder; expected the name of a file")
        if os.path.exists(output) and identity(output) in read:
            raise InputError(f"{output} is one of the files that are read; expected another name for the result")


def identity(path: Path) -> tuple[int, int] | None:
    """What a file is under any of its names, or None if it is not there (a link that leads nowhere)."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


# ---- the work


def the_vocoder(bundle: Bundle, options: argparse.Namespace) -> Vocoder | Hifigan | None:
    """The neural vocoder or HiFi-GAN, on the bundle's device, or None for Griffin-Lim; options.vocoder becomes its name.
    Raises InputError when it is asked for and reads other frames than the bundle has, or is not there."""
    from rwae_audio.conversion.converter import check_vocoder
    from rwae_audio.data.features import PRESETS
    from rwae_audio.devices import find_device

    if options.vocoder == "griffin-lim":
        check_vocoder(bundle, None)
        return None
    if bundle.config.mel.frames() != PRESETS["vocoder"].frames():  # which both of them read
        if options.vocoder or options.pitch:
            wanted = f"--vocoder {options.vocoder}" if options.vocoder else f"--pitch {options.pitch}"
            name = "HiFi-GAN" if options.vocoder == "hifigan" else "the neural vocoder"
            raise InputError(f"{wanted}: {name} reads frames of [mel] preset vocoder; expected griffin-lim")
        options.vocoder = "griffin-lim"
        check_vocoder(bundle, None)
        return None
    if options.vocoder == "hifigan":
        from rwae_audio.conversion.vocoders.hifigan import load_hifigan

        return load_hifigan().to(find_device(options.device))
    from rwae_audio.conversion.vocoders.neural import load_vocoder

    options.vocoder = "neural"
    return load_vocoder().to(find_device(options.device))


def the_voice(bundle: Bundle, options: argparse.Namespace) -> tuple[Tensor, Register | None]:
    """(static_dim,), of --voice or of all targets together, and the register to speak in, None for the source's.
    options.pitch becomes what is done, None where the vocoder is told of no pitch."""
    from rwae_audio.conversion.converter import read_voice, register_of_file, voice_of_file
    from rwae_audio.conversion.pitch import pooled
    from rwae_audio.inference.bundle import pooled_voice

    wanted = options.vocoder == "neural" and options.pitch != "keep"
    if options.voice:
        voice, register = read_voice(bundle, options.voice)
    else:
        voice = pooled_voice([voice_of_file(bundle, target) for target in options.targets])
        found = [register_of_file(bundle, target) for target in options.targets] if wanted else []
        register = pooled(one for one in found if one is not None)
    if options.vocoder == "neural":
        options.pitch_missing = wanted and register is None
        options.pitch = "target" if wanted and register is not None else "keep"
    return voice, register if wanted else None


def convert_each(
    bundle: Bundle,
    jobs: list[Job],
    voice: Tensor,
    options: argparse.Namespace,
    vocoder: Vocoder | Hifigan | None,
    pitch: Register | None,
) -> tuple[list[dict[str, Any]], list[dict[str, str]], bool]:
    """What was converted, what could not be, and whether Ctrl-C came between. A single recording that cannot be
    converted raises InputError."""
    from tqdm import tqdm

    from rwae_audio.conversion.converter import convert_file
    from rwae_audio.data.audio import open_audio

    alone = not os.path.isdir(options.source)
    done: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    try:
        for source, output in tqdm(jobs, desc="converting", unit="file", disable=alone or not sys.stderr.isatty()):
            began = time.perf_counter()
            try:
                notes = open_audio(source, bundle.sample_rate).notes
                made = convert_file(bundle, source, output, voice, options.seed, vocoder, pitch)
            except InputError as error:
                if alone:
                    raise
                failed.append({"source": str(source), "reason": str(error)})
                continue
            done.append(
                {
                    "source": str(source),
                    "output": str(output),
                    "seconds": made.seconds,
                    "real_time_factor": (time.perf_counter() - began) / made.seconds,
                    "silent": made.level.silent,
                    "peak": made.level.peak,
                    "scaled": made.gain if made.gain < 1 else None,
                    "resampled_from": made.source_rate if made.source_rate != bundle.sample_rate else None,
                    "notes": list(notes),
                }
            )
    except KeyboardInterrupt:
        return done, failed, True
    return done, failed, False


def say_done(bundle: Bundle, options: argparse.Namespace, done: list[dict[str, Any]]) -> None:
    """What one would want to know of each file, once all has gone well, because an error is to be the only line."""
    from rwae_audio.data.audio import open_audio
    from rwae_audio.data.level import FAR_BEYOND

    if done and options.vocoder == "neural" and options.pitch_missing:
        names = options.voice or ", ".join(map(str, options.targets))
        say(NAME, f"warning: no pitch is known of the voice in {names}; the source's is kept")
    folder = os.path.isdir(options.source)
    for path in [*([] if folder else [item["source"] for item in done]), *options.targets]:
        say_notes(NAME, path, open_audio(path, bundle.sample_rate))
    for item in done:
        for note in item["notes"] if folder else ():
            say(NAME, f"{item['source']}: {note}")
        if folder and item["peak"] > FAR_BEYOND:
            say(NAME, f"warning: {beyond_full_scale(item['source'], item['peak'])}")
        if item["silent"]:
            say(NAME, f"warning: {item['source']} is silent; {item['output']} is as silent")
        if item["scaled"]:
            say(NAME, f"scaled {item['output']} down by {item['scaled']:.3f} so that nothing clips")


def say_counts(
    options: argparse.Namespace, done: list[dict[str, Any]], skipped: list[Path], failed: list[dict[str, str]]
) -> None:
    if not os.path.isdir(options.source):
        for item in done:
            say(
                NAME,
                f"wrote {item['output']}: {item['seconds']:.2f} s, real-time factor {item['real_time_factor']:.2f}",
            )
        for output in skipped:
            say(NAME, f"left {output} as it was")
        return
    counts = {
        f"converted {len(done)} files into {options.output}": True,
        f"{sum(item['resampled_from'] is not None for item in done)} of them resampled": any(
            item["resampled_from"] for item in done
        ),
        f"left {len(skipped)} as they were": skipped,
        f"could not convert {len(failed)}": failed,
        f"skipped {options.left_out} other files (hidden, or without the suffix of a recording)": options.left_out,
    }
    say(NAME, "; ".join(text for text, there in counts.items() if there))


if __name__ == "__main__":
    sys.exit(main())
