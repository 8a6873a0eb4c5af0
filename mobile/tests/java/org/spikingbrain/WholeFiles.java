package org.spikingbrain;

import java.io.File;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Arrays;

/** Writes files by WholeFile alone; needs no native library. */
final class WholeFiles {
    private WholeFiles() {}

    /** input, files...: what was said of each, or "written"; a line for each. */
    public static void main(String[] a) {
        for (String file : Arrays.copyOfRange(a, 1, a.length)) {
            try {
                WholeFile.write(new File(file), WholeFile.parts(new File(a[0])), ByteBuffer.wrap(new byte[] { 'n', 'e', 'w' }));
                System.out.println("written");
            } catch (IOException e) {
                System.out.println(e.getMessage());
            }
        }
    }
}
