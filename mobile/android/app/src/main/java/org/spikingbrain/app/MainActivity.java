package org.spikingbrain.app;

import android.app.AlertDialog;
import android.content.Intent;
import android.os.Bundle;
import android.os.Debug;
import android.view.Menu;
import android.view.MenuItem;
import android.widget.Button;
import android.widget.EditText;
import android.widget.ListView;
import android.widget.TextView;

import org.spikingbrain.app.core.Engine;
import org.spikingbrain.app.core.Format;
import org.spikingbrain.app.core.ModelEntry;
import org.spikingbrain.app.core.Status;

import java.util.List;

/** The chat. */
public final class MainActivity extends Screen {
    private static final int IMPORT = 1;
    private static final int NOTIFICATIONS = 2;

    private final ChatAdapter messages = new ChatAdapter(this);
    private TextView status;
    private EditText input;
    private Button send;

    @Override
    protected void onCreate(Bundle saved) {
        super.onCreate(saved);
        setContentView(R.layout.main);
        status = find(R.id.status);
        input = find(R.id.input);
        send = find(R.id.send);
        ((ListView) find(R.id.messages)).setAdapter(messages);
        send.setOnClickListener(view -> sendOrStop());
        app().loadOnce();
    }

    // --- the chat ------------------------------------------------------------------------------------------------

    private boolean busy() {
        Engine.State state = app().engine().state();
        return state == Engine.State.GENERATING || state == Engine.State.MEASURING || state == Engine.State.LOADING;
    }

    private void sendOrStop() {
        if (busy()) {
            app().engine().stop();
            return;
        }
        String text = input.getText().toString().trim();
        if (!text.isEmpty()) {
            Newer.askForNotifications(this, NOTIFICATIONS);
            input.setText("");
            send.setEnabled(false); // until the engine says that it began
            app().engine().send(text);
        }
    }

    @Override
    void showChange() {
        Engine engine = app().engine();
        messages.show(engine.chat().messages());
        if (input.getText().length() == 0) {
            String draft = engine.chat().takeDraft(); // a question that got no answer
            if (!draft.isEmpty()) {
                input.setText(draft);
            }
        }
        send.setText(busy() ? R.string.stop : R.string.send);
        send.setEnabled(engine.state() != Engine.State.EMPTY);
        status.setText(statusLine(engine));
    }

    private String statusLine(Engine engine) {
        Status now = engine.status();
        switch (engine.state()) {
            case EMPTY:
                return getString(R.string.no_model);
            case LOADING:
                return getString(R.string.loading) + " " + now.line;
            default:
                return now.name + "\n" + now.line;
        }
    }

    // --- the menu ------------------------------------------------------------------------------------------------

    @Override
    public boolean onCreateOptionsMenu(Menu menu) {
        getMenuInflater().inflate(R.menu.main, menu);
        return true;
    }

    @Override
    public boolean onOptionsItemSelected(MenuItem item) {
        int id = item.getItemId();
        if (id == R.id.import_model) {
            importModel();
        } else if (id == R.id.models) {
            chooseModel();
        } else if (id == R.id.new_chat) {
            app().engine().newChat();
        } else if (id == R.id.memory) {
            showMemory();
        } else if (id == R.id.settings) {
            startActivity(new Intent(this, SettingsActivity.class));
        } else if (id == R.id.benchmark) {
            startActivity(new Intent(this, BenchActivity.class));
        } else if (id == R.id.spikes_screen) {
            startActivity(new Intent(this, SpikesActivity.class));
        } else {
            return super.onOptionsItemSelected(item);
        }
        return true;
    }

    private void importModel() {
        Intent open = new Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE).setType("*/*"); // GGUF has no type of its own
        app().attempt(() -> startActivityForResult(open, IMPORT));
    }

    @Override
    protected void onActivityResult(int request, int result, Intent data) {
        super.onActivityResult(request, result, data);
        if (request == IMPORT && result == RESULT_OK && data != null && data.getData() != null) {
            app().importModel(data.getData());
        }
    }

    private void chooseModel() {
        List<ModelEntry> models = app().store().models();
        CharSequence[] names = new CharSequence[models.size()];
        for (int i = 0; i < names.length; ++i) {
            names[i] = models.get(i).name + ", " + Format.mib(models.get(i).bytes);
        }
        show(new AlertDialog.Builder(this).setTitle(R.string.models).setItems(names, (dialog, which) -> openModel(models.get(which))));
    }

    private void openModel(ModelEntry model) {
        show(new AlertDialog.Builder(this).setMessage(model.name)
            .setPositiveButton(R.string.ok, (dialog, which) -> app().attempt(() -> {
                app().store().use(model);
                app().load();
            }))
            .setNeutralButton(R.string.remove_model, (dialog, which) -> app().attempt(() -> app().store().remove(model)))
            .setNegativeButton(R.string.cancel, null));
    }

    private void showMemory() {
        show(new AlertDialog.Builder(this).setTitle(R.string.memory).setMessage(app().engine().status().memory(Debug.getPss(), app().availableMemory()))
            .setPositiveButton(R.string.ok, null));
    }
}
