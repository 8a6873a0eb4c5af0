#!/bin/sh
# usage: mobile/tests/kotlin-compiler.sh FOLDER
# Kotlin's compiler, its library and its coroutines from the npm registry (a package of 90 MB, of which 64 are kept), checked, in FOLDER.
set -e
version=2.4.20 # of it: coroutines 1.8.0
sha512=205e4854cecba4f840fe7b47410a5a56dd72c6969a428bed11560bcaa58cb9a2ebd177a52cf3e6effb0ce872e1b5c4638e3a12b0aec8ee53f693360990ccbbdf
parts="kotlin-compiler kotlin-stdlib kotlinx-coroutines-core-jvm annotations-13.0"
fail() { echo "make: kotlin: $*" >&2; exit 1; }

[ "$(cat "$1/.version" 2>/dev/null)" != $version ] || exit 0
command -v npm >/dev/null 2>&1 || fail "got no npm, expected it; do apt-get install npm (as root), or go without: the tests of mobile/android/ktx are then left out"
mkdir -p "$1"
work=$(mktemp -d "$1/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT INT TERM
(cd "$work" && npm pack --silent kotlin-compiler@$version) >/dev/null || fail "kotlin-compiler@$version: got no package, expected it of the npm registry; look at 'npm config get registry' and repeat"
echo "$sha512  $work/kotlin-compiler-$version.tgz" | sha512sum --check --status || fail "kotlin-compiler@$version: got another file, expected the one with SHA-512 $(echo $sha512 | cut -c1-16)...; do not use it"
tar -xzf "$work/kotlin-compiler-$version.tgz" -C "$work" $(for part in $parts; do echo package/lib/$part.jar; done)
rm -f "$1"/*.jar
mv "$work"/package/lib/*.jar "$1"
echo $version > "$1/.version"
