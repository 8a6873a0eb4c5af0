package org.spikingbrain;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

/** Arguments, refused with a sentence. */
final class Check {
    private Check() {}

    /** IllegalArgumentException with the message unless ok. */
    static void that(boolean ok, String message) {
        if (!ok) {
            throw new IllegalArgumentException(message);
        }
    }

    static int range(String what, int got, int low, int high) {
        that(got >= low && got <= high, what + ": got " + got + ", expected " + low + " to " + high);
        return got;
    }

    static double range(String what, double got, double low, double high) {
        that(got >= low && got <= high, what + ": got " + got + ", expected a number from " + low + " to " + high);
        return got;
    }

    static void room(String where, long n, int nCtx) {
        that(n <= nCtx, where + ": requested tokens: got " + n + ", expected at most n_ctx=" + nCtx + "; reset, shorten the prompt or raise n_ctx");
    }

    static double finite(String what, double got) {
        that(!Double.isNaN((float) got) && !Double.isInfinite((float) got), what + ": got " + got + ", expected a finite number");
        return got;
    }

    /** A list of which no element is null, a copy. */
    static <T> List<T> list(String what, List<? extends T> list) {
        List<T> out = new ArrayList<>(given(what, list));
        for (int i = 0; i < out.size(); ++i) {
            given(what + "[" + i + "]", out.get(i));
        }
        return Collections.unmodifiableList(out);
    }

    static <T> T given(String what, T value) {
        that(value != null, what + ": got null, expected a value");
        return value;
    }
}
