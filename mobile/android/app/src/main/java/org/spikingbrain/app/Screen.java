package org.spikingbrain.app;

import android.app.Activity;
import android.app.AlertDialog;
import android.view.View;

/** What the screens share: the app's engine, messages, updates while they are shown. */
public abstract class Screen extends Activity {
    SampleApp app() {
        return (SampleApp) getApplication();
    }

    @Override
    public void setContentView(int layout) {
        super.setContentView(layout);
        Newer.keepClear(this, findViewById(android.R.id.content));
    }

    @SuppressWarnings("unchecked") // Android's own is generic from 8.0 on
    <T extends View> T find(int id) {
        return (T) findViewById(id);
    }

    @Override
    protected void onStart() {
        super.onStart();
        app().attach(this);
    }

    @Override
    protected void onStop() {
        app().detach(this);
        super.onStop();
    }

    /** The engine's state, chat or status changed. */
    void showChange() {}

    void showMessage(String text) {
        new AlertDialog.Builder(this).setMessage(text).setPositiveButton(R.string.ok, null).show();
    }

    void askToLoad(String sentence, Runnable load) {
        new AlertDialog.Builder(this).setTitle(R.string.refused).setMessage(sentence).setNegativeButton(R.string.cancel, null)
            .setPositiveButton(R.string.load_anyway, (dialog, which) -> load.run()).show();
    }
}
