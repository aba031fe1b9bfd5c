"""Make the built-in demo corpus of sentences, which are synthetic, with eSpeak NG.

    pip install espeakng-loader==0.2.4          the library (eSpeak NG 1.52) and its data
    python recipes/demo/make_demo_corpus.py rwae_audio/assets/demo

There are 80 speakers with 10 of the sentences below. A speaker is a voice variant of eSpeak NG: pitch, length of the vocal
tract, formants, breath, roughness, accent and speaking rate. Pitch, rate, level, spectral tilt and noise are different for
each utterance, as if it had been recorded on another day. All random numbers depend on one seed, except for those inside
eSpeak NG. So a second run gives the same table and different audio files.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import librosa
import numpy as np
import soundfile
from espeak import RATE, made_with, opened, recorded, speakers, trimmed

SEED = 20210101
SPLITS = {"train": 44, "dev": 12, "test": 24}  # speakers; each has as many women as men
PER_SPEAKER = 10
COMPRESSION = 0.93  # libsndfile's compression level for Ogg Opus, about 24 kbit/s
SENTENCES = """
The red boat left before noon.
Please bring two cups of tea.
Our garden needs rain this week.
She keeps a map in every coat.
Nobody heard the kettle boil.
Put the blue jar on the shelf.
A cold wind moved the gate.
They sold nine baskets of plums.
My brother fixes old clocks.
The train was full of students.
Write your name at the top.
We found the key under a stone.
Fresh bread makes a house smell good.
Turn left after the small bridge.
His dog sleeps on the porch.
Those shoes are far too big.
The choir sang in the square.
I never learned to play chess.
Cheap paint will fade by June.
Leave the window open tonight.
Grandfather told us a long joke.
The lake froze in one night.
Each child drew a yellow bird.
You should try the onion soup.
Thunder shook the little cabin.
He measured the wood twice.
The baker starts work at four.
Seven geese flew over the mill.
This road ends at the sea.
Her voice carried across the hall.
Do not touch the wet clay.
Some maps show only rivers.
The judge asked a simple question.
Pack warm gloves and a torch.
A fox crossed the empty yard.
They painted the fence green.
The price of salt went up.
Could you hold this ladder for me?
Every window faced the north.
We waited an hour for the bus.
The pilot checked the fuel again.
Owls hunt while the farm sleeps.
Both teams wore white shirts.
Mix the flour with warm milk.
The museum closes at five.
A thick fog hid the tower.
I owe you a proper lunch.
Young trees bend in a storm.
The letter came without a stamp.
Choose a card and show it to her.
Old songs are easy to remember.
The shepherd counted his sheep twice.
Heavy boxes go on the bottom.
What time does the market open?
A spider lives behind the mirror.
The engine coughed and then stopped.
We share one pot of honey.
Nine people signed the paper.
Keep the receipt for the lamp.
The moon rose above the quiet town.
""".strip().splitlines()


def main() -> int:
    """Make the corpus, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder of the corpus; an existing one is replaced")
    folder = parser.parse_args().folder
    rng = np.random.default_rng(SEED)
    shutil.rmtree(folder, ignore_errors=True)
    rows = []
    with opened() as espeak:
        for split, speaker, voice in speakers(SPLITS, rng):
            (folder / speaker).mkdir(parents=True)
            for k, text in enumerate(rng.choice(SENTENCES, PER_SPEAKER, replace=False).tolist()):
                rate, pitch = int(voice.rate * rng.uniform(0.92, 1.08)), int(rng.integers(47, 54))
                samples, phones = espeak.speak(text, f"s-{speaker}", voice, rate, pitch)
                samples, labels = trimmed(samples, phones, espeak.rate)
                samples = recorded(librosa.resample(samples, orig_sr=espeak.rate, target_sr=RATE), rng)
                file = f"{speaker}/{k}.ogg"
                soundfile.write(
                    folder / file, samples, RATE, format="OGG", subtype="OPUS", compression_level=COMPRESSION
                )
                rows.append({"file": file, "speaker": speaker, "split": split, "text": text, "phones": labels})
        tools = made_with(espeak, SEED)
    lines = ",\n".join("    " + json.dumps(row) for row in rows)
    table = f'{{\n  "made_with": {json.dumps(tools)},\n  "licence": "CC0",\n  "utterances": [\n{lines}\n  ]\n}}\n'
    (folder / "utterances.json").write_text(table, encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {len(rows)} utterances of {sum(SPLITS.values())} speakers, {size / 1e6:.2f} MB, {tools}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
