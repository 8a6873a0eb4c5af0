package org.spikingbrain.app;

import android.app.Activity;
import android.app.AlertDialog;
import android.view.View;

import java.util.ArrayList;
import java.util.List;

/** What the screens share: the app's engine, messages, updates while they are shown. */
public abstract class Screen extends Activity {
    private final List<AlertDialog> dialogs = new ArrayList<>();
    private final List<String> messages = new ArrayList<>(); // shown, and not closed yet

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

    /** A dialog left open would hold the screen; a message that nobody has closed is shown by the next one. */
    @Override
    protected void onDestroy() {
        List<String> again = new ArrayList<>(messages);
        for (AlertDialog dialog : dialogs) {
            dialog.dismiss();
        }
        if (isChangingConfigurations()) {
            again.forEach(app()::onMessage);
        }
        super.onDestroy();
    }

    void show(AlertDialog.Builder dialog) {
        dialogs.removeIf(old -> !old.isShowing());
        dialogs.add(dialog.show());
    }

    /** The engine's state, chat or status changed. */
    void showChange() {}

    void showMessage(String text) {
        messages.add(text);
        show(new AlertDialog.Builder(this).setMessage(text).setPositiveButton(R.string.ok, null).setOnDismissListener(dialog -> messages.remove(text)));
    }

    void askToLoad(String sentence, Runnable load) {
        show(new AlertDialog.Builder(this).setTitle(R.string.refused).setMessage(sentence).setNegativeButton(R.string.cancel, null)
            .setPositiveButton(R.string.load_anyway, (dialog, which) -> load.run()));
    }
}
