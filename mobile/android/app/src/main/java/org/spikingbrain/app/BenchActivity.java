package org.spikingbrain.app;

import android.content.Intent;
import android.net.Uri;
import android.os.Build;
import android.os.Bundle;
import android.widget.Button;
import android.widget.EditText;
import android.widget.TextView;

import org.json.JSONException;
import org.spikingbrain.app.core.BenchRows;
import org.spikingbrain.app.core.Benchmark;
import org.spikingbrain.app.core.Engine;

import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;

/** llama-bench's pp and tg on the model that is loaded; the rows go to a file that the user chooses. */
public final class BenchActivity extends Screen {
    private static final int EXPORT = 1;

    private Button run;

    @Override
    protected void onCreate(Bundle saved) {
        super.onCreate(saved);
        setContentView(R.layout.bench);
        run = find(R.id.run);
        run.setOnClickListener(view -> app().attempt(this::runOrStop));
        find(R.id.export).setOnClickListener(view -> app().attempt(() -> startActivityForResult(
            new Intent(Intent.ACTION_CREATE_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE).setType("application/x-ndjson")
                .putExtra(Intent.EXTRA_TITLE, "android.jsonl"), EXPORT)));
    }

    private void runOrStop() {
        if (app().engine().state() != Engine.State.READY) {
            app().engine().stop();
            return;
        }
        app().measure(count(R.id.n_prompt), count(R.id.n_gen), count(R.id.repetitions), new BenchRows(cpuName(), BuildConfig.PIN, BuildConfig.COMMIT));
    }

    /** IllegalArgumentException: no number. */
    private int count(int id) {
        String text = ((EditText) find(id)).getText().toString();
        try {
            return Integer.parseInt(text);
        } catch (NumberFormatException e) {
            throw new IllegalArgumentException("benchmark: got \"" + text + "\", expected a whole number; do correct it", e);
        }
    }

    /** The chip where Android tells it, and the phone. */
    private static String cpuName() {
        String phone = Build.MANUFACTURER + " " + Build.MODEL;
        return Newer.chip() == null ? phone : Newer.chip() + ", " + phone;
    }

    @Override
    void showChange() {
        boolean ready = app().engine().state() == Engine.State.READY;
        run.setText(ready ? R.string.run : R.string.stop);
        find(R.id.export).setEnabled(ready && !app().benchRows().isEmpty());
        TextView result = find(R.id.result);
        try {
            result.setText(ready ? Benchmark.summary(app().benchRows()) : app().benchProgress());
        } catch (JSONException e) {
            result.setText(e.getMessage());
        }
    }

    @Override
    protected void onActivityResult(int request, int result, Intent data) {
        super.onActivityResult(request, result, data);
        if (request == EXPORT && result == RESULT_OK && data != null && data.getData() != null) {
            app().attempt(() -> export(data.getData()));
        }
    }

    private void export(Uri uri) throws IOException {
        try (OutputStream out = getContentResolver().openOutputStream(uri, "wt")) {
            if (out == null) {
                throw new FileNotFoundException("export: " + uri + ": got no file, expected one; do choose another place");
            }
            out.write(BenchRows.jsonl(app().benchRows()).getBytes(StandardCharsets.UTF_8));
        }
    }
}
