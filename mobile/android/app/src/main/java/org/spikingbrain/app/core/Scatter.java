package org.spikingbrain.app.core;

import java.util.Arrays;

/** Median and spread of repetitions, as bench/rows.py has them. */
final class Scatter {
    private Scatter() {}

    static double median(double[] values) {
        double[] v = sorted(values);
        int n = v.length;
        return n % 2 == 1 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
    }

    /** Half the distance between the quartiles over the median; of fewer than 4 values (largest - smallest) / 2 over it; 0 for one. */
    static double spread(double[] values) {
        if (values.length < 2) {
            return 0;
        }
        double[] v = sorted(values);
        double wide = v.length < 4 ? v[v.length - 1] - v[0] : quartile(v, 3) - quartile(v, 1);
        double middle = median(v);
        return middle == 0 ? 0 : wide / 2 / Math.abs(middle);
    }

    /** Python's statistics.quantiles(n=4), method exclusive. */
    private static double quartile(double[] v, int i) {
        int m = v.length + 1;
        int j = Math.max(1, Math.min(i * m / 4, v.length - 1));
        int delta = i * m - 4 * j;
        return (v[j - 1] * (4 - delta) + v[j] * delta) / 4;
    }

    private static double[] sorted(double[] values) {
        double[] v = values.clone();
        Arrays.sort(v);
        return v;
    }
}
