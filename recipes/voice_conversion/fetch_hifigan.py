"""Download SpeechBrain's HiFi-GAN and convert its weights, once, for `rwae-vc --vocoder hifigan` (extra `hifigan`).

    python recipes/voice_conversion/fetch_hifigan.py                              from Hugging Face, 55 MB
    python recipes/voice_conversion/fetch_hifigan.py --checkpoint generator.ckpt  from a file that you have downloaded

The published file is a PyTorch checkpoint with weight norm, of which only weights are read. The result is a safetensors
file without weight norm, in the cache folder ($RWAE_CACHE, or ~/.cache/rwae-audio).
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

from rwae_audio.commands.common import Parser, free_output, guarded, say
from rwae_audio.files import InputError, write_tensors

NAME = "fetch_hifigan.py"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="a downloaded generator.ckpt")
    output = "the file to write (default: hifigan.safetensors in the cache folder)"
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help=output)
    parser.add_argument("--force", action="store_true", help="overwrite an existing file")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the recipe, and return its exit code."""
    options = arguments(argv)
    from rwae_audio.conversion.vocoders.hifigan import weights_path

    output = options.output or weights_path()
    if not options.output:
        output.parent.mkdir(parents=True, exist_ok=True)
    free_output(output, options.force)
    if options.checkpoint and not options.checkpoint.is_file():
        raise InputError(f"{options.checkpoint} does not exist; expected generator.ckpt of SpeechBrain's HiFi-GAN")
    checkpoint = options.checkpoint or download()
    digest = convert(checkpoint, output)
    say(NAME, f"wrote {output}, the weights of {checkpoint} (SHA-256 {digest})")
    return 0


def download() -> Path:
    """Download generator.ckpt from Hugging Face, and return its path. Raises InputError without a network."""
    from rwae_audio.conversion.vocoders.hifigan import EXTRA, SOURCE

    try:
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(SOURCE, "generator.ckpt"))
    except ImportError as error:
        raise InputError(f"huggingface_hub cannot be imported ({error}); expected {EXTRA}") from error
    except (OSError, ValueError) as error:  # all errors of networks, servers and caches
        reason = str(error).strip().splitlines()[0]
        by_hand = f"--checkpoint generator.ckpt of https://huggingface.co/{SOURCE}"
        raise InputError(f"cannot fetch {SOURCE} ({reason}); expected a network, or {by_hand}") from error


def convert(checkpoint: Path, output: Path) -> str:
    """Convert a checkpoint to a safetensors file without weight norm, and return the SHA-256 of the checkpoint.

    Args:
        checkpoint: The path of generator.ckpt.
        output: The file to write.

    Raises:
        InputError: The file is not a checkpoint of this network.
    """
    from rwae_audio.conversion.vocoders.hifigan import SOURCE, new_generator

    generator = new_generator()
    from speechbrain.utils.checkpoints import torch_recovery

    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    try:
        torch_recovery(generator, checkpoint, end_of_epoch=True)  # reads weights only and runs no code of the file
    except Exception as error:  # torch raises errors of many types for other files
        raise InputError(f"{checkpoint} is not the generator.ckpt of {SOURCE} ({type(error).__name__})") from error
    generator.remove_weight_norm()
    weights = {name: value.contiguous() for name, value in generator.state_dict().items()}
    write_tensors(output, weights, {"source": SOURCE, "sha256": digest})
    return digest


if __name__ == "__main__":
    sys.exit(guarded(main, NAME))
