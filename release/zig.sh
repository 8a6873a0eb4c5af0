#!/bin/sh
# usage: release/zig.sh VENV TARGET FOLDER [WORDS]
# Makes zig (PyPI's ziglang in VENV) a compiler for TARGET, such as x86_64-linux-gnu.2.28, as CMake and ccache want one: a file per
# tool, FOLDER/clang, clang++, ar and ranlib. They keep what zig builds for itself in FOLDER/cache. WORDS are added where clang++ links:
# with -nostdlib++ zig does not build its static libc++.
set -e
venv=$1 target=$2 link=$4
zig=$("$venv/bin/python" -c 'import importlib.util as u; s = u.find_spec("ziglang"); print(s.submodule_search_locations[0] if s else "")')/zig
if [ ! -x "$zig" ]; then
    echo "zig: ziglang: got no such package in $venv, expected zig's C++ compiler; do $venv/bin/python -m pip install ziglang" >&2
    exit 1
fi
mkdir -p "$3"
folder=$(cd "$3" && pwd)

# zig has its own names for ARM's architectures: -march=armv8.2-a+fp16 is -mcpu=generic+v8_2a+fullfp16
cat > "$folder/words.new" <<'EOS'
for word do
    shift
    case $word in
        -march=armv[89]*)
            word=$(echo "$word" | sed 's/^-march=armv\([89]\)-a/-mcpu=generic+v\1a/; s/^-march=armv\([89]\)\.\([0-9]\)-a/-mcpu=generic+v\1_\2a/; s/+fp16/+fullfp16/') ;;
        -bundle) word=-dynamiclib ;; # macOS: zig makes no bundles, and both can be loaded
        -c|-E|-S) link= ;;
    esac
    set -- "$@" "$word"
done
EOS
keep() { cmp -s "$folder/$1.new" "$folder/$1" && rm "$folder/$1.new" || mv "$folder/$1.new" "$folder/$1"; } # its time, which ccache looks at
wrap() {    # NAME WORDS LINK
    { printf '#!/bin/sh\nexport ZIG_GLOBAL_CACHE_DIR="%s"\nlink="%s"\n' "$folder/cache" "$3"
      cat "$folder/words.new"
      printf 'exec "%s" %s $link "$@"\n' "$zig" "$2"; } > "$folder/$1.new"
    chmod +x "$folder/$1.new"
    keep "$1"
}
wrap clang "cc -target $target"
wrap clang++ "c++ -target $target" "$link"
wrap ar ar
wrap ranlib ranlib
rm "$folder/words.new"
