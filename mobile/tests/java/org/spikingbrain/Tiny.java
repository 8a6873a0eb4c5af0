package org.spikingbrain;

import java.io.File;
import java.io.IOException;

/** What the test on a device asks of the tiny model. */
final class Tiny {
    private Tiny() {}

    /** model, folder for a snapshot; folder of the CPU libraries, where they are modules */
    static void check(String[] a) throws IOException {
        if (a.length > 2) {
            SpikingBrain.initialize(new File(a[2]));
        }
        TinyModel.check(new File(a[0]), new File(a[1]));
        Run.out("checked", true);
    }
}
