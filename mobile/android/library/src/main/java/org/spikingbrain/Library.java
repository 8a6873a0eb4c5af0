package org.spikingbrain;

import java.io.File;

/** The native libraries of this process. */
final class Library {
    private static boolean loaded;

    private Library() {}

    /** folder: of the CPU libraries; null: that of libspikingbrain_jni.so. The first call that succeeds counts. */
    static synchronized void load(File folder) {
        if (!loaded) {
            System.loadLibrary("spikingbrain_jni");
            Native.init(Prints.utf8(folder == null ? "" : folder.getPath()));
            loaded = true;
        }
    }
}
