"""Convert speech into another voice: words of SOURCE, voice of TARGET. Convert a voice only with its owner's consent."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rwae_audio.commands.common import DEVICE_HELP, Parser, beyond_full_scale, guarded, say
from rwae_audio.commands.jobs import Failure, Job, Plan, planned, planned_voices
from rwae_audio.commands.pipes import PIPE, Pipes, pipes
from rwae_audio.commands.voices import Target, TargetVoice, read_target
from rwae_audio.files import InputError

if TYPE_CHECKING:
    from rwae_audio.conversion.converter import Converted, Converter

NAME = "rwae-vc"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(
        prog=NAME,
        description=__doc__,
        epilog="The result is a 16-bit mono file at 16 kHz, as loud as the source. Exit status: 0 after success, 1 if some "
        "files of a folder or some voices could not be converted (they are named), 2 if the input is wrong, 130 after Ctrl-C.",
    )
    parser.add_argument("source", metavar="SOURCE", help="a recording, a folder of recordings, or - for standard input")
    parser.add_argument(
        "targets", nargs="*", type=Path, metavar="TARGET", help="recordings of one speaker, whose voice the result gets"
    )
    parser.add_argument("--voice", type=Path, metavar="FILE", help="a voice that rwae-embed wrote, instead of TARGET")
    parser.add_argument(
        "--targets",
        dest="voices",
        type=Path,
        metavar="DIR",
        help="convert SOURCE into every voice in DIR, and write OUT/SOURCE_as_VOICE.wav. A voice is a subfolder with "
        "recordings, a recording, or a file that rwae-embed wrote",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="OUT",
        help="the result: a .wav or .flac file, a folder, or - for WAV on standard output (default: SOURCE_as_TARGET.wav, or "
        "standard output if SOURCE is -)",
    )
    parser.add_argument("--force", action="store_true", help="overwrite existing files")
    parser.add_argument("--skip-existing", action="store_true", help="convert only if the output file does not exist")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="a trained model (default: the one in the package)")
    parser.add_argument("--device", default="cpu", help=DEVICE_HELP)
    parser.add_argument(
        "--vocoder",
        choices=("neural", "griffin-lim", "hifigan"),
        help="the vocoder, from log-mels to sound (default: neural, or griffin-lim for a bundle with other log-mels than the "
        "neural vocoder's). hifigan needs weights, see recipes/voice_conversion",
    )
    parser.add_argument(
        "--pitch",
        choices=("target", "keep"),
        help="move the pitch into the range of the target, or keep that of the source (default: target); only with the "
        "neural vocoder",
    )
    parser.add_argument(
        "--adapt",
        type=int,
        default=0,
        metavar="N",
        help="adapt the vocoder to the TARGET recordings in N steps; a minute of speech is enough, and 150 steps take about "
        "20 s (default: 0)",
    )
    parser.add_argument("--seed", type=int, default=0, help="the seed of the vocoder's random numbers (default: 0)")
    parser.add_argument("--json", action="store_true", help="print a report as one JSON object")
    options = parser.parse_args(argv)
    options.stdin, options.source = options.source == PIPE, Path(options.source)
    options.stdout = options.stdin and not options.voices if options.output is None else str(options.output) == PIPE
    check(parser, options)
    return options


def check(parser: Parser, options: argparse.Namespace) -> None:
    """Check combinations of options. Prints one line and exits with 2 if options exclude each other or are missing."""
    for name, value in (("--targets DIR", options.voices), ("--voice FILE", options.voice)):
        if value and options.targets:
            parser.error(f"{name.split()[0]} replaces TARGET; got {options.targets[0]} as well")
    if options.voices and options.voice:
        parser.error("--targets has the voices; got --voice as well; expected one of them")
    if not (options.voices or options.voice or options.targets):
        parser.error("expected TARGET recordings, or --voice FILE, or --targets DIR")
    if options.stdout:
        excluded = {"--json": options.json, "--targets": options.voices, "--skip-existing": options.skip_existing}
        for name in (name for name, value in excluded.items() if value):
            parser.error(f"standard output takes one WAV file; got {name} as well; expected -o OUT with it")
    if options.force and options.skip_existing:
        parser.error("--force overwrites what --skip-existing keeps; expected one of them")
    if options.adapt < 0:
        parser.error(f"--adapt {options.adapt}; expected 0 or more steps")
    if options.adapt and options.voice:
        parser.error("--adapt adapts a voice to recordings; expected TARGET with it, or rwae-embed --adapt")
    if options.adapt and options.vocoder in ("griffin-lim", "hifigan"):
        parser.error(f"--adapt adapts the neural vocoder to a voice; got --vocoder {options.vocoder}")
    if options.pitch and options.vocoder in ("griffin-lim", "hifigan"):
        parser.error(f"--pitch {options.pitch} is for the neural vocoder; got --vocoder {options.vocoder}")


def main(argv: list[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    options = arguments(argv)
    return guarded(lambda: convert(options), NAME)


def convert(options: argparse.Namespace) -> int:
    """Convert all sources, with standard input and output if they are used. Returns the exit code."""
    with pipes(options.stdin, options.stdout) as files:
        options.source, options.output = files.source or options.source, files.output or options.output
        return convert_files(options, files)


def convert_files(options: argparse.Namespace, files: Pipes) -> int:
    """Convert all sources, print messages, and return the exit code.

    Args:
        options: The options of the command.
        files: The temporary files of standard input and output.
    """
    plan = new_plan(options)
    files.fill()
    converter = load_converter(options)
    moves = converter.vocoder.takes_pitch and options.pitch != "keep"
    voices: dict[Target, TargetVoice] = {}
    if not options.voices:  # an error in the only voice ends the command
        voices = {(target := single_target(options)): read_target(converter, target, moves, options.adapt)}
    done, failed, interrupted = convert_each(converter, plan, voices, moves, options)
    for item in done:
        item |= {name: files.shown(item[name]) for name in ("source", "output")}
    failed = [Failure(*map(files.shown, failure)) for failure in failed]
    for failure in failed:
        say(NAME, failure.reason)  # the reason begins with the name of the file
    if options.json:
        print(json.dumps(report(options, converter, plan, voices, done, failed)))
    if interrupted:
        say(NAME, f"interrupted: {len(done)} of {len(plan.jobs)} files converted, nothing half written")
        return 130
    files.empty()
    print_notes(options, converter, plan, voices, done)
    print_counts(options, plan, done, failed)
    return 1 if failed else 0


def new_plan(options: argparse.Namespace) -> Plan:
    """Return the plan of all conversions. Raises InputError if an input does not exist or a file would be overwritten."""
    if options.stdout and os.path.isdir(options.source):
        raise InputError(f"{options.source} is a folder; expected one recording, as standard output takes one WAV file")
    outputs = options.output, options.force, options.skip_existing
    if options.voices:
        return planned_voices(options.source, options.voices, *outputs)
    return planned(options.source, single_target(options), *outputs)


def single_target(options: argparse.Namespace) -> Target:
    """Return the target voice: the file of --voice, or all TARGET recordings together."""
    files = (options.voice,) if options.voice else tuple(options.targets)
    return Target(files[0].stem, files[0], files, bool(options.voice))


def load_converter(options: argparse.Namespace) -> Converter:
    """Return the converter with the bundle of --bundle and the vocoder of --vocoder.

    Raises InputError if the bundle, the vocoder and --pitch do not fit each other.
    """
    from rwae_audio.conversion.converter import Converter

    converter = Converter.load(options.bundle, options.device, options.vocoder)
    if options.pitch and not converter.vocoder.takes_pitch:
        raise InputError(
            f"--pitch {options.pitch} is for the neural vocoder, which reads other log-mels than this bundle's; "
            "expected no --pitch"
        )
    return converter


def convert_each(
    converter: Converter, plan: Plan, voices: dict[Target, TargetVoice], moves: bool, options: argparse.Namespace
) -> tuple[list[dict[str, Any]], list[Failure], bool]:
    """Convert all jobs of a plan.

    Args:
        converter: The converter.
        plan: The plan.
        voices: The voices that have been read. Further voices are read when they are needed, and added.
        moves: Whether conversions get the pitch range of the voice.
        options: The options of the command.

    Returns:
        The report of each conversion, the failed conversions, and whether Ctrl-C was pressed.

    Raises:
        InputError: The only conversion fails, or the only source of several conversions cannot be read.
    """
    from tqdm import tqdm

    done: list[dict[str, Any]] = []
    failed = list(plan.failed)
    no_bar = not plan.folder or not sys.stderr.isatty()
    try:
        reading = converter.read_source(plan.shared) if plan.shared and plan.jobs else None
        for job in tqdm(plan.jobs, desc="converting", unit="file", disable=no_bar):
            try:
                if job.target not in voices:
                    voices[job.target] = read_target(converter, job.target, moves, options.adapt)
                began, target = time.perf_counter(), voices[job.target]
                source = reading or job.source
                converted = converter.convert_file(
                    source, job.output, target.voice, pitch=target.pitch, seed=options.seed
                )
            except InputError as error:
                if not plan.folder:
                    raise
                failed.append(Failure(str(job.source), str(error), job.target.name))
                continue
            pitch = target.pitch if converter.vocoder.takes_pitch else None
            done.append(entry(job, pitch, converted, converter.sample_rate, time.perf_counter() - began))
    except KeyboardInterrupt:
        return done, sorted(failed), True
    return done, sorted(failed), False


def entry(job: Job, pitch: str | None, converted: Converted, sample_rate: int, seconds: float) -> dict[str, Any]:
    """Return the entry of one conversion in the report.

    Args:
        job: The conversion.
        pitch: "target" or "keep", or None for a vocoder without F0.
        converted: The result of `Converter.convert_file`.
        sample_rate: The sample rate of the output in Hz.
        seconds: The time that the conversion took.
    """
    return {
        "source": str(job.source),
        "output": str(job.output),
        "voice": job.target.name,
        "pitch": pitch,
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
    voices: dict[Target, TargetVoice],
    done: list[dict[str, Any]],
    failed: list[Failure],
) -> dict[str, Any]:
    """Return the report that --json prints.

    Args:
        options: The options of the command.
        converter: The converter.
        plan: The plan of all conversions.
        voices: The target voices.
        done: The entry of each conversion.
        failed: The failed conversions.
    """
    pitch = "target" if any(voice.pitch == "target" for voice in voices.values()) else "keep"
    return {
        "bundle": converter.bundle.digest,
        "targets": [str(options.voices)] if options.voices else [str(path) for path in options.targets],
        "voice": None if options.voice is None else str(options.voice),
        "sample_rate": converter.sample_rate,
        "vocoder": converter.vocoder.name,
        "pitch": pitch if converter.vocoder.takes_pitch else None,
        "seed": options.seed,
        "adapt": options.adapt,
        "converted": done,
        "skipped": [str(output) for output in plan.skipped],
        "failed": [failure._asdict() for failure in failed],
    }


def print_notes(
    options: argparse.Namespace,
    converter: Converter,
    plan: Plan,
    voices: dict[Target, TargetVoice],
    done: list[dict[str, Any]],
) -> None:
    """Print messages about recordings and outputs, after success alone, so that an error message is the only line.

    The arguments are those of `report`.
    """
    from rwae_audio.data.level import FAR_BEYOND

    lines = [voice.warning for voice in voices.values() if done and voice.warning]
    for item in done:
        if item["resampled_from"] and (options.voices or not plan.folder):
            lines.append(f"resampled {item['source']} {item['resampled_from']} → {converter.sample_rate} Hz")
        lines += [f"{item['source']}: {note}" for note in item["notes"]]
        if item["peak"] > FAR_BEYOND:
            lines.append(f"warning: {beyond_full_scale(item['source'], item['peak'])}")
        if item["silent"]:
            lines.append(f"warning: {item['source']} is silent; so is {item['output']}")
        if item["scaled"]:
            lines.append(f"scaled {item['output']} down by {item['scaled']:.3f} so that nothing clips")
    lines += [note for voice in voices.values() for note in voice.notes]
    for line in dict.fromkeys(lines):  # without duplicates, since several outputs may have one source
        say(NAME, line)


def print_counts(options: argparse.Namespace, plan: Plan, done: list[dict[str, Any]], failed: list[Failure]) -> None:
    """Print the numbers of written, skipped and failed files. The arguments are those of `report`."""
    if not plan.folder:
        for item in done:
            seconds, factor = item["seconds"], item["real_time_factor"]
            say(NAME, f"wrote {item['output']}: {seconds:.2f} s, 16 kHz, mono, real-time factor {factor:.2f}")
        for output in plan.skipped:
            say(NAME, f"kept {output} as it was")
        return
    resampled = sum(item["resampled_from"] is not None for item in done)
    outputs = (
        f"{'stdin' if options.stdin else options.source} into {len(done)} voices, in"
        if options.voices
        else f"{len(done)} files into"
    )
    kind = "recording or a voice" if options.voices else "recording"
    counts = {
        f"converted {outputs} {plan.output}": True,
        f"{resampled} of them resampled": resampled and not options.voices,
        f"kept {len(plan.skipped)} as they were": plan.skipped,
        f"could not convert {len(failed)}": failed,
        f"skipped {plan.others} other files (hidden, or without the suffix of a {kind})": plan.others,
    }
    say(NAME, "; ".join(text for text, applies in counts.items() if applies))


if __name__ == "__main__":
    sys.exit(main())
