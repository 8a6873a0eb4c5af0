package org.spikingbrain;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/** Bytes outside the Java heap, which on Android a direct buffer of its own would not be. */
final class NativeMemory implements AutoCloseable {
    private final ByteBuffer owned;

    /** SpikingBrainException: no memory. */
    NativeMemory(long size) {
        owned = Native.allocate(size);
    }

    /** All of it, little-endian; not to be used after close(). */
    ByteBuffer bytes() {
        return owned.duplicate().order(ByteOrder.LITTLE_ENDIAN);
    }

    /** The memory itself, for Native. */
    ByteBuffer handle() {
        return owned;
    }

    @Override
    public void close() {
        Native.free(owned);
    }
}
