package org.spikingbrain.app;

import android.content.Context;
import android.graphics.Canvas;
import android.graphics.Color;
import android.graphics.Paint;
import android.util.AttributeSet;
import android.view.View;

import org.spikingbrain.app.core.SpikeReport;

/** Bars of a spike report, the largest as high as the view. */
public final class HistogramView extends View {
    private static final float LABEL_SP = 11;

    private final Paint bar = new Paint();
    private final Paint label = new Paint(Paint.ANTI_ALIAS_FLAG);
    private SpikeReport report;

    public HistogramView(Context context, AttributeSet attributes) {
        super(context, attributes);
        bar.setColor(Color.rgb(0x3F, 0x78, 0xC9));
        label.setColor(Color.GRAY);
        label.setTextAlign(Paint.Align.CENTER);
        label.setTextSize(LABEL_SP * getResources().getDisplayMetrics().scaledDensity);
    }

    void show(SpikeReport newReport) {
        report = newReport;
        invalidate();
    }

    @Override
    protected void onDraw(Canvas canvas) {
        super.onDraw(canvas);
        if (report == null || report.nTokens == 0) {
            return;
        }
        double most = 0;
        for (double share : report.shares) {
            most = Math.max(most, share);
        }
        float width = (float) getWidth() / report.shares.length;
        float line = label.getTextSize() * 1.4f;
        float high = getHeight() - 2 * line;
        for (int i = 0; i < report.shares.length; ++i) {
            float top = (float) (high * (1 - report.shares[i] / most));
            canvas.drawRect(i * width + 1, line + top, (i + 1) * width - 1, line + high, bar);
            canvas.drawText(report.labels[i], (i + 0.5f) * width, getHeight() - line / 3, label);
            canvas.drawText(Math.round(100 * report.shares[i]) + "%", (i + 0.5f) * width, line + top - line / 4, label);
        }
    }
}
