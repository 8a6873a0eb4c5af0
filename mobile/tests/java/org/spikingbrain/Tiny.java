package org.spikingbrain;

import java.io.File;
import java.io.IOException;

/** What the test on a device asks of the tiny model. */
final class Tiny {
    private Tiny() {}

    /** model, folder for a snapshot */
    static void check(String[] a) throws IOException {
        TinyModel.check(new File(a[0]), new File(a[1]));
        Run.out("checked", true);
    }
}
