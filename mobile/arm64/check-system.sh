#!/bin/sh
# usage: mobile/arm64/check-system.sh build|test [--install]
# Names, in one sentence, every Debian package that cross-compiling for arm64 (test: and mobile/tests) needs and the system
# lacks; as root, --install installs them instead.
missing=
command -v aarch64-linux-gnu-g++ >/dev/null 2>&1 && command -v aarch64-linux-gnu-gcc >/dev/null 2>&1 || missing="$missing g++-aarch64-linux-gnu"
if [ "$1" = test ]; then
    command -v qemu-aarch64 >/dev/null 2>&1 || missing="$missing qemu-user"
    command -v javac >/dev/null 2>&1 || { [ -n "$JAVA_HOME" ] && [ -x "$JAVA_HOME/bin/javac" ]; } || missing="$missing openjdk-17-jdk-headless"
    command -v aapt >/dev/null 2>&1 || missing="$missing aapt"
    for tool in zipalign apksigner; do
        command -v $tool >/dev/null 2>&1 || missing="$missing $tool"
    done
    command -v proguard >/dev/null 2>&1 || missing="$missing proguard-cli"
    [ -f /usr/share/java/junit4.jar ] || missing="$missing junit4"
    [ -f /usr/share/android-framework-res/framework-res.apk ] || missing="$missing android-framework-res"
    [ -f /usr/share/java/json-android.jar ] || missing="$missing libandroid-json-org-java"
fi
[ -n "$missing" ] || exit 0

if [ "$2" = --install ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    { apt-get update -q && apt-get install -y -q $missing; } >/dev/null && exit 0
fi
echo "make: system packages: got no$missing, expected all of these; do apt-get install -y$missing (as root; apt-get update first, if they are not found)" >&2
exit 1
