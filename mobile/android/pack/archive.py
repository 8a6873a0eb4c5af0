"""An AAR and an APK from parts, as the Android Gradle plugin lays them out: for tests, where no Gradle is."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Mapping

TIME = (1981, 1, 1, 1, 1, 2)  # the plugin's own: archives of the same parts are the same
METADATA = "aarFormatVersion=1.0\naarMetadataVersion=1.0\nminCompileSdk=1\nminCompileSdkExtension=0\nminAndroidGradlePluginVersion=1.0.0\n"
PAGE = 16384


def write(out: Path, entries: Mapping[str, bytes], stored: Mapping[str, int] | None = None) -> Path:
    """`stored`: entries that are not compressed, with the alignment of their bytes in the archive."""
    stored = stored or {}
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            info = zipfile.ZipInfo(name, TIME)
            info.compress_type = zipfile.ZIP_STORED if name in stored else zipfile.ZIP_DEFLATED
            if name in stored:
                info.extra = padding(archive.start_dir + 30 + len(name.encode()), stored[name])
            archive.writestr(info, data)
    return out


def padding(offset: int, unit: int) -> bytes:
    """An extra field, as zipalign's, that brings what follows the header to a multiple of unit."""
    n = -(offset + 6) % unit
    return b"\x35\xd9" + (n + 2).to_bytes(2, "little") + unit.to_bytes(2, "little") + bytes(n)


def natives(folder: str, libraries: Mapping[str, list[Path]]) -> dict[str, bytes]:
    """ABI -> stripped libraries."""
    return {f"{folder}/{abi}/{path.name}": path.read_bytes() for abi, paths in libraries.items() for path in sorted(paths)}


def licences(texts: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"assets/licenses/spikingbrain/{name}": text for name, text in texts.items()}


def aar(out: Path, manifest: bytes, classes: bytes, rules: bytes, texts: Mapping[str, bytes], libraries: Mapping[str, list[Path]]) -> Path:
    """R.txt is empty: the library has no resources."""
    return write(out, {"AndroidManifest.xml": manifest, "classes.jar": classes, "R.txt": b"", "proguard.txt": rules,
                       "META-INF/com/android/build/gradle/aar-metadata.properties": METADATA.encode(), **licences(texts), **natives("jni", libraries)})


def apk(out: Path, linked: Path, dex: bytes, texts: Mapping[str, bytes], libraries: Mapping[str, list[Path]], legacy: bool = True) -> Path:
    """Unsigned. linked: aapt's, with manifest and resources; legacy: libraries are compressed and lie in a folder once installed."""
    with zipfile.ZipFile(linked) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    entries |= {"classes.dex": dex, **licences(texts), **natives("lib", libraries)}
    pages = {} if legacy else {name: PAGE for name in entries if name.endswith(".so")}
    return write(out, entries, {"resources.arsc": 4, **pages})
