package org.spikingbrain.app;

import android.os.Bundle;
import android.widget.CheckBox;
import android.widget.EditText;
import android.widget.Spinner;
import android.widget.TextView;

import org.spikingbrain.SpikingBrain;
import org.spikingbrain.app.core.Settings;

import java.io.IOException;

/** Settings; saving loads the model again where it must be. */
public final class SettingsActivity extends Screen {
    @Override
    protected void onCreate(Bundle saved) {
        super.onCreate(saved);
        setContentView(R.layout.settings);
        Settings now = app().store().settings();
        ((TextView) find(R.id.threads_label)).setText(getString(R.string.threads, SpikingBrain.defaultThreads()));
        field(R.id.threads).setText(Integer.toString(now.nThreads));
        field(R.id.k).setText(now.kText());
        field(R.id.temperature).setText(Settings.text(now.temperature));
        field(R.id.n_ubatch).setText(Integer.toString(now.nUbatch));
        field(R.id.max_tokens).setText(Integer.toString(now.maxTokens));
        spikes().setSelection(now.spikes.ordinal());
        ((CheckBox) find(R.id.count_spikes)).setChecked(now.spikeStats);
        find(R.id.save).setOnClickListener(view -> app().attempt(this::save));
    }

    private EditText field(int id) {
        return find(id);
    }

    private Spinner spikes() {
        return find(R.id.spikes);
    }

    private String typed(int id) {
        return field(id).getText().toString();
    }

    private void save() throws IOException {
        Settings old = app().store().settings();
        Settings wanted = new Settings(typed(R.id.threads), Settings.Spikes.values()[spikes().getSelectedItemPosition()], typed(R.id.k),
            typed(R.id.temperature), typed(R.id.n_ubatch), typed(R.id.max_tokens), ((CheckBox) find(R.id.count_spikes)).isChecked());
        app().store().settings(wanted);
        if (wanted.reloads(old)) {
            app().load();
        } else {
            app().engine().settings(wanted);
        }
        finish();
    }
}
