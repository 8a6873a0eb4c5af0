package org.spikingbrain.app;

import android.os.Bundle;
import android.widget.TextView;

import org.spikingbrain.app.core.SpikeReport;

/** How many spikes the projections read: a histogram, and a line per layer. */
public final class SpikesActivity extends Screen {
    @Override
    protected void onCreate(Bundle saved) {
        super.onCreate(saved);
        setContentView(R.layout.spikes);
        app().countSpikes();
    }

    @Override
    void showChange() {
        SpikeReport report = app().spikes();
        if (report == null) {
            return; // not counted yet
        }
        ((HistogramView) find(R.id.histogram)).show(report);
        ((TextView) find(R.id.text)).setText(report.nTokens == 0 ? getString(R.string.no_spikes) : report.text);
    }
}
