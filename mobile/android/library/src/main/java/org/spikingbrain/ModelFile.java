package org.spikingbrain;

import java.io.File;
import java.io.FileNotFoundException;
import java.util.Collections;
import java.util.Set;

/** A model file that is not loaded yet: a path or a descriptor. */
final class ModelFile {
    private final String path; // null: by descriptor
    private final int fd;

    private ModelFile(String path, int fd) {
        this.path = path;
        this.fd = fd;
    }

    static ModelFile of(String where, File file) throws FileNotFoundException {
        Check.given(where + ": file", file);
        if (!file.isFile()) {
            throw new FileNotFoundException(where + ": file: got " + file + ", expected a GGUF file; check the path");
        }
        return new ModelFile(file.getPath(), -1);
    }

    static ModelFile of(String where, int fd) {
        Check.that(fd >= 0, where + ": descriptor: got " + fd + ", expected an open one");
        return new ModelFile(null, fd);
    }

    String name() {
        return path != null ? path : "descriptor " + fd;
    }

    /** What is read, over which nothing is saved. */
    Set<File> files() {
        return path == null ? Collections.<File>emptySet() : WholeFile.parts(new File(path));
    }

    private byte[] pathBytes() {
        return path == null ? null : Prints.utf8(path);
    }

    MemoryEstimate estimate(String where, Overrides o, SessionOptions s) throws ModelLoadException {
        Check.given(where + ": session", s);
        try {
            long[] got = Native.measure(pathBytes(), fd, o.spikeForNative(), o.kForNative(), s.nCtx, s.nBatch, s.nUbatch, 1);
            return new MemoryEstimate(got[0], got[1], got[2], 2 * 4 * got[3], got[4]);
        } catch (SpikingBrainException e) {
            throw refused(where, e);
        }
    }

    long load(Overrides o, boolean useMmap, LoadProgress progress) throws ModelLoadException {
        try {
            return Native.loadModel(pathBytes(), fd, o.spikeForNative(), o.kForNative(), useMmap, progress);
        } catch (CancelledException e) {
            throw e;
        } catch (SpikingBrainException e) {
            throw refused("load", e);
        }
    }

    private ModelLoadException refused(String where, SpikingBrainException e) {
        return new ModelLoadException(where + ": " + name() + ": got a file that llama.cpp cannot load: " + e.getMessage() + "; convert or copy it again");
    }
}
