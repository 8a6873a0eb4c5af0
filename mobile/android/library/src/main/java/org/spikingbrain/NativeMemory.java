package org.spikingbrain;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/** Bytes outside the Java heap, which on Android a direct buffer of its own would not be. */
final class NativeMemory implements AutoCloseable {
    private ByteBuffer owned; // null: closed

    /** SpikingBrainException: no memory. */
    NativeMemory(long size) {
        owned = Native.allocate(size);
    }

    /** All of it, little-endian; what it gave is not to be used after close(). */
    ByteBuffer bytes() {
        return handle().duplicate().order(ByteOrder.LITTLE_ENDIAN);
    }

    /** The memory itself, for Native. */
    ByteBuffer handle() {
        if (owned == null) {
            throw new IllegalStateException("memory: got a closed one, expected an open one");
        }
        return owned;
    }

    @Override
    public void close() {
        if (owned != null) {
            Native.free(owned);
        }
        owned = null;
    }
}
