"""Say what SOURCE says in the voice of TARGET. Convert a voice only with its owner's consent."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rwae_audio.commands.common import DEVICE_HELP, Parser, beyond_full_scale, guarded, say, say_notes
from rwae_audio.commands.jobs import Failure, Plan, planned
from rwae_audio.files import InputError

if TYPE_CHECKING:
    from rwae_audio.conversion.converter import Converted, Converter
    from rwae_audio.conversion.reading import Reading
    from rwae_audio.conversion.voice import Voice

NAME = "rwae-vc"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog=NAME,
        description=__doc__,
        epilog="The result is a 16-bit mono file at 16 kHz, as loud as the source. Exit status: 0 if all went well, 1 if some "
        "files of a folder could not be converted (each is named), 2 for a mistake in the input, 130 after Ctrl-C.",
    )
    parser.add_argument(
        "source", type=Path, metavar="SOURCE", help="a recording of the words, or a folder of recordings"
    )
    parser.add_argument(
        "targets", nargs="*", type=Path, metavar="TARGET", help="recordings of the voice, of one speaker"
    )
    parser.add_argument("--voice", type=Path, metavar="FILE", help="a voice saved by rwae-embed, instead of TARGET")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="OUT",
        help="the result: a .wav or .flac file, or a folder (default: SOURCE_as_TARGET.wav)",
    )
    parser.add_argument("--force", action="store_true", help="overwrite files that exist")
    parser.add_argument("--skip-existing", action="store_true", help="keep files that exist, and convert the others")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="a trained model (default: the one in the package)")
    parser.add_argument("--device", default="cpu", help=DEVICE_HELP)
    parser.add_argument(
        "--vocoder",
        choices=("neural", "griffin-lim", "hifigan"),
        help="how log-mels become sound (default: neural; griffin-lim for a bundle whose log-mels the neural vocoder does not "
        "read); hifigan needs weights, see recipes/voice_conversion",
    )
    parser.add_argument(
        "--pitch",
        choices=("target", "keep"),
        help="move the pitch to the target's range, or keep the source's (default: target); neural vocoder only",
    )
    parser.add_argument("--seed", type=int, default=0, help="the seed of the vocoder's noise (default: 0)")
    parser.add_argument("--json", action="store_true", help="print a report as one JSON object")
    options = parser.parse_args(argv)
    if options.voice and options.targets:
        parser.error(f"--voice replaces TARGET; got {options.targets[0]} as well")
    if not (options.voice or options.targets):
        parser.error("expected TARGET recordings, or --voice FILE")
    if options.force and options.skip_existing:
        parser.error("--force overwrites what --skip-existing keeps; expected one of them")
    if options.pitch and options.vocoder in ("griffin-lim", "hifigan"):
        parser.error(f"--pitch {options.pitch} is for the neural vocoder; got --vocoder {options.vocoder}")
    return options


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    return guarded(lambda: convert(options), NAME)


def convert(options: argparse.Namespace) -> int:
    inputs = [*options.targets, *([options.voice] if options.voice else [])]
    plan = planned(options.source, inputs, options.output, inputs[0].stem, options.force, options.skip_existing)
    converter = the_converter(options)
    voice, readings = the_voice(converter, options)
    moves = converter.vocoder.takes_pitch and options.pitch != "keep"
    pitch = "target" if moves and voice.register is not None else "keep"
    done, failed, interrupted = convert_each(converter, plan, voice, pitch, options.seed)
    for failure in failed:
        say(NAME, failure.reason)  # which begins with the file's name
    if options.json:
        print(json.dumps(report(options, converter, plan, pitch, done, failed)))
    if interrupted:
        say(NAME, f"interrupted: {len(done)} of {len(plan.jobs)} files converted, nothing half written")
        return 130
    if done and moves and voice.register is None:
        say(NAME, f"warning: no pitch is known of the voice in {', '.join(map(str, inputs))}; the source's is kept")
    say_done(converter, plan, readings, done)
    say_counts(plan, done, failed)
    return 1 if failed else 0


def the_converter(options: argparse.Namespace) -> Converter:
    """Return the bundle and the vocoder that the options name. Raises InputError when they do not fit each other."""
    from rwae_audio.conversion.converter import Converter

    converter = Converter.load(options.bundle, options.device, options.vocoder)
    if options.pitch and not converter.vocoder.takes_pitch:
        raise InputError(
            f"--pitch {options.pitch} is for the neural vocoder, which reads other log-mels than this bundle's; "
            "expected no --pitch"
        )
    return converter


def the_voice(converter: Converter, options: argparse.Namespace) -> tuple[Voice, dict[Path, Reading]]:
    """Return the voice of --voice or of all targets together, and the readings of the targets."""
    from rwae_audio.conversion.reading import read_file
    from rwae_audio.conversion.voice import pooled_voices, voice_of

    if options.voice:
        return converter.load_voice(options.voice), {}
    moves = converter.vocoder.takes_pitch and options.pitch != "keep"
    readings = {target: read_file(target, converter.bundle.config.mel) for target in options.targets}
    voices = [voice_of(converter.bundle, readings[target], moves) for target in options.targets]
    return pooled_voices(voices), readings


def convert_each(
    converter: Converter, plan: Plan, voice: Voice, pitch: str, seed: int
) -> tuple[list[dict[str, Any]], list[Failure], bool]:
    """Convert all jobs of a plan.

    Returns:
        What was converted, what could not be, and whether Ctrl-C came between.

    Raises:
        InputError: When the source is one recording, and it cannot be converted.
    """
    from tqdm import tqdm

    done: list[dict[str, Any]] = []
    failed = list(plan.failed)
    quiet = not plan.folder or not sys.stderr.isatty()
    try:
        for source, output in tqdm(plan.jobs, desc="converting", unit="file", disable=quiet):
            began = time.perf_counter()
            try:
                converted = converter.convert_file(source, output, voice, pitch=pitch, seed=seed)
            except InputError as error:
                if not plan.folder:
                    raise
                failed.append(Failure(str(source), str(error)))
                continue
            done.append(entry(source, output, converted, converter.sample_rate, time.perf_counter() - began))
    except KeyboardInterrupt:
        return done, sorted(failed), True
    return done, sorted(failed), False


def entry(source: Path, output: Path, converted: Converted, sample_rate: int, seconds: float) -> dict[str, Any]:
    """Return what the report says of one conversion; seconds: how long it took."""
    return {
        "source": str(source),
        "output": str(output),
        "seconds": converted.seconds,
        "real_time_factor": seconds / converted.seconds,
        "silent": converted.level.silent,
        "peak": converted.level.peak,
        "scaled": converted.gain if converted.gain < 1 else None,
        "resampled_from": converted.source_rate if converted.source_rate != sample_rate else None,
        "notes": list(converted.notes),
    }


def report(
    options: argparse.Namespace,
    converter: Converter,
    plan: Plan,
    pitch: str,
    done: list[dict[str, Any]],
    failed: list[Failure],
) -> dict[str, Any]:
    """Return the object that --json prints."""
    return {
        "bundle": converter.bundle.digest,
        "targets": [str(path) for path in options.targets],
        "voice": None if options.voice is None else str(options.voice),
        "sample_rate": converter.sample_rate,
        "vocoder": converter.vocoder.name,
        "pitch": pitch if converter.vocoder.takes_pitch else None,
        "seed": options.seed,
        "converted": done,
        "skipped": [str(output) for output in plan.skipped],
        "failed": [failure._asdict() for failure in failed],
    }


def say_done(converter: Converter, plan: Plan, readings: dict[Path, Reading], done: list[dict[str, Any]]) -> None:
    """Say what a user should know of each file, once all has gone well: an error is to be the only line."""
    from rwae_audio.data.level import FAR_BEYOND

    for item in done:
        if item["resampled_from"] and not plan.folder:
            say(NAME, f"resampled {item['source']} {item['resampled_from']} → {converter.sample_rate} Hz")
        for note in item["notes"]:
            say(NAME, f"{item['source']}: {note}")
        if item["peak"] > FAR_BEYOND:
            say(NAME, f"warning: {beyond_full_scale(item['source'], item['peak'])}")
        if item["silent"]:
            say(NAME, f"warning: {item['source']} is silent; {item['output']} is as silent")
        if item["scaled"]:
            say(NAME, f"scaled {item['output']} down by {item['scaled']:.3f} so that nothing clips")
    for path, reading in readings.items():
        say_notes(NAME, path, reading)


def say_counts(plan: Plan, done: list[dict[str, Any]], failed: list[Failure]) -> None:
    """Say what was written and what was left."""
    if not plan.folder:
        for item in done:
            seconds, factor = item["seconds"], item["real_time_factor"]
            say(NAME, f"wrote {item['output']}: {seconds:.2f} s, 16 kHz, mono, real-time factor {factor:.2f}")
        for output in plan.skipped:
            say(NAME, f"kept {output} as it was")
        return
    resampled = sum(item["resampled_from"] is not None for item in done)
    counts = {
        f"converted {len(done)} files into {plan.output}": True,
        f"{resampled} of them resampled": resampled,
        f"kept {len(plan.skipped)} as they were": plan.skipped,
        f"could not convert {len(failed)}": failed,
        f"skipped {plan.others} other files (hidden, or without the suffix of a recording)": plan.others,
    }
    say(NAME, "; ".join(text for text, holds in counts.items() if holds))


if __name__ == "__main__":
    sys.exit(main())
