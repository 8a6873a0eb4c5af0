#!/bin/sh
# usage: mobile/arm64/adb-run.sh MODEL.gguf [llama-completion|llama-bench|...] [ARGUMENTS...]
#        mobile/arm64/adb-run.sh --flavour < /proc/cpuinfo
# Pushes the static tools that fit the phone's CPU and the model over adb, and runs one of them there, llama-completion with a
# short prompt if nothing else is said. Not yet run on a device.
#   ADB_DIR  folder on the device (/data/local/tmp/spikingbrain)
set -e
die() { echo "adb-run: $1" >&2; exit 1; }

# every core is asked: a phone's cores may differ, and a program moves between them
flavour() {
    awk -F: '/^Features/ { n++; if ($2 ~ / asimddp( |$)/) have++ } END { print (n && have == n) ? "armv8.2-dotprod" : "armv8.0" }'
}
if [ "$1" = --flavour ]; then
    flavour
    exit
fi

[ $# -ge 1 ] || die "arguments: got none, expected MODEL.gguf; do mobile/arm64/adb-run.sh MODEL.gguf llama-bench -p 64 -n 32"
command -v adb >/dev/null 2>&1 || die "adb: got no such program, expected Android's debug bridge; do apt-get install -y adb (as root)"
model=$1
shift
[ -f "$model" ] || die "$model: got no such file, expected a GGUF file; do sb-convert CHECKPOINT -o $model"
[ "$(adb get-state 2>/dev/null)" = device ] ||
    die "device: got none that is ready, expected one phone; do allow USB debugging on it and see that adb devices lists it"

kind=$(adb shell cat /proc/cpuinfo | tr -d '\r' | flavour)
tools=$(cd "$(dirname "$0")/../.." && pwd)/build/arm64-static/$kind
[ -d "$tools" ] || die "$tools: got no such folder, expected the static tools; do make arm64-static"
dir=${ADB_DIR:-/data/local/tmp/spikingbrain}
name=$(basename "$model")
[ $# -ge 1 ] || set -- llama-completion -p "The default value is" -n 64 --temp 0 -no-cnv
tool=$1
shift
[ -f "$tools/$tool" ] || die "$tool: got no such tool, expected one of: $(cd "$tools" && echo llama-*)"

# quoted once more, for the shell of the device
quoted=
for word in "$@"; do
    quoted="$quoted '$(printf %s "$word" | sed "s/'/'\\\\''/g")'"
done

echo "adb-run: $kind, $dir/$tool" >&2
adb shell mkdir -p "$dir"
adb push "$tools/$tool" "$dir/$tool"
adb push "$model" "$dir/$name"
adb shell "cd '$dir' && chmod 755 '$tool' && LLAMA_ARG_FIT=off './$tool' -m '$name'$quoted"
