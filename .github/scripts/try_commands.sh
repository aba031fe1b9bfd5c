#!/usr/bin/env bash
# Runs the three commands of an installed rwae-audio on recordings of the demo corpus in the package, in an empty folder.
#
#     .github/scripts/try_commands.sh ENVIRONMENT        a virtual environment that the wheel was installed in
set -euo pipefail

environment=$(cd "$1" && pwd)
export PATH="$environment/bin:$PATH"
unset PYTHONPATH
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

# The package is the one in the environment, and every command is of its version.
version=$(python -c 'import rwae_audio; print(rwae_audio.__version__)')
package=$(python -c 'import pathlib, rwae_audio; print(pathlib.Path(rwae_audio.__file__).resolve().parent)')
case "$package" in
    "$(cd "$environment" && pwd -P)"/*) ;;
    *) echo "rwae_audio is in $package, not in $environment" >&2; exit 1 ;;
esac
for command in rwae-vc rwae-embed rwae-eer; do
    [ "$($command --version)" = "$command $version" ] || { echo "$command is not of version $version" >&2; exit 1; }
done

demo="$package/assets/demo"

# A conversion is as long as its source, and is not silent.
rwae-vc "$demo/f02/0.ogg" "$demo/m01/0.ogg" "$demo/m01/1.ogg" -o converted.wav
python - "$demo/f02/0.ogg" converted.wav <<'CHECK'
import sys

import numpy as np
import soundfile

source, converted = (soundfile.info(path).duration for path in sys.argv[1:])
assert abs(source - converted) < 0.01, (source, converted)
assert np.abs(soundfile.read(sys.argv[2])[0]).max() > 0.01
CHECK

# The codes of two recordings: a static code each, dynamic codes a frame, all of them numbers.
rwae-embed --dynamic "$demo/f02/0.ogg" "$demo/f02/1.ogg" -o codes.safetensors
python - codes.safetensors <<'CHECK'
import sys

import numpy as np
from safetensors.numpy import load_file

codes = load_file(sys.argv[1])
assert sorted(name.partition("/")[0] for name in codes) == ["dynamic", "dynamic", "static", "static"], sorted(codes)
assert all(np.isfinite(code).all() for code in codes.values())
CHECK

# The error rates of a list of six trials of three speakers.
cat > trials.txt <<'TRIALS'
1 f02/0.ogg f02/1.ogg
1 m01/0.ogg m01/1.ogg
1 m03/0.ogg m03/1.ogg
0 f02/0.ogg m01/1.ogg
0 m01/0.ogg m03/1.ogg
0 m03/0.ogg f02/1.ogg
TRIALS
rwae-eer --trials trials.txt --audio-dir "$demo" --json > report.json
python - report.json <<'CHECK'
import json
import sys

with open(sys.argv[1]) as file:
    report = json.load(file)
assert report["trials"] == 6, report
assert 0 <= report["static"]["eer"] <= 1, report
CHECK

echo "rwae-audio $version converts, embeds and scores"
