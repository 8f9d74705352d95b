#!/usr/bin/env bash
# The whole GPU check in under eight minutes: correctness, speed of the engines and of one-pass
# models, training. Prints one table, and exits with 1 where a test failed.
#
#     tests/gpu/run.sh [--wheels FOLDER] [OPTIONS OF check.py]
#
# It needs a checkout, a CUDA device, and a Python (PYTHON, python3 by default) with torch; nothing
# is compiled but by NVRTC and torch.compile, and wavewn itself is not installed: it runs from the
# checkout, with or without the native extension. Where packages are missing that wavewn needs, they
# are installed into a virtual environment beside the system's packages, in a temporary folder: from
# FOLDER where there is no network, else from the package index.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
python="${PYTHON:-python3}"
wheels=()
if [ "${1:-}" = --wheels ]; then
    wheels=(--no-index --find-links "$2")
    shift 2
fi

# import name=package, for what an image with torch may lack; torch brings NVRTC.
needed=(numpy=numpy librosa=librosa soundfile=soundfile lightning=lightning
    jsonargparse='jsonargparse[signatures]' safetensors=safetensors tensorboard=tensorboard
    matplotlib=matplotlib jinja2=Jinja2 yaml=PyYAML tqdm=tqdm pytest=pytest)
case " $* " in
*" --device cpu "*) ;;
*) needed+=('cuda.core=cuda-core>=1,<2' 'cuda.bindings=cuda-bindings==13.*') ;;
esac
find_missing='
import sys
from importlib.util import find_spec

def there(name):
    parent = name.rpartition(".")[0]
    return (not parent or there(parent)) and find_spec(name) is not None

pairs = [argument.split("=", 1) for argument in sys.argv[1:]]
print("\n".join(package for name, package in pairs if not there(name)))
'
mapfile -t missing < <("$python" -c "$find_missing" "${needed[@]}" | sed '/^$/d')
if [ "${#missing[@]}" -gt 0 ]; then
    work="$(mktemp -d)"
    trap 'rm -rf "$work"' EXIT
    echo "-- installing ${missing[*]}"
    "$python" -m venv --system-site-packages "$work/venv"
    # A virtual environment's Python as the image's own would hide that one's packages.
    "$python" -c 'import site; print("\n".join(site.getsitepackages()))' \
        >"$("$work/venv/bin/python" -c 'import site; print(site.getsitepackages()[0])')/image.pth"
    python="$work/venv/bin/python"
    "$python" -m pip install --quiet "${wheels[@]}" "${missing[@]}" ||
        echo "!! some packages are missing; what needs them will say so"
fi
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
"$python" "$root/tests/gpu/check.py" "$@"
