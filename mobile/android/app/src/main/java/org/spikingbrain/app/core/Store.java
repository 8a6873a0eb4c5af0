package org.spikingbrain.app.core;

import org.json.JSONArray;
import org.json.JSONException;
import org.json.JSONObject;
import org.spikingbrain.ChatMessage;
import org.spikingbrain.Conversation;

import java.io.File;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

/**
 * What outlives the process, in one folder: the models imported and the settings (app.json), the chat (chat.json), and the session's
 * snapshot beside. The snapshot may be older than the chat: a session knows by its own hashes how much of a prompt it holds.
 */
public final class Store {
    private final File folder;
    private final List<ModelEntry> models = new ArrayList<>(); // the one in use first
    private Settings settings = Settings.DEFAULT;

    public Store(File folder) {
        this.folder = folder;
    }

    /** Reads app.json. IOException: it cannot be read, or is damaged; the store stays empty and can be used. */
    public synchronized void open() throws IOException {
        String text = TextFile.read(appFile());
        if (text == null) {
            return;
        }
        try {
            JSONObject o = new JSONObject(text);
            Settings found = Settings.fromJson(o.getJSONObject("settings"));
            JSONArray list = o.getJSONArray("models");
            List<ModelEntry> entries = new ArrayList<>();
            for (int i = 0; i < list.length(); ++i) {
                entries.add(ModelEntry.fromJson(list.getJSONObject(i)));
            }
            settings = found;
            models.addAll(entries);
        } catch (JSONException | IllegalArgumentException e) {
            throw new IOException("open: " + appFile().getName() + ": got " + e.getMessage() + ", expected settings and models; do import the model again", e);
        }
    }

    private File appFile() {
        return new File(folder, "app.json");
    }

    private File chatFile() {
        return new File(folder, "chat.json");
    }

    public File snapshotFile() {
        return new File(folder, "chat.snapshot");
    }

    // --- models and settings -------------------------------------------------------------------------------------

    /** The one in use first. */
    public synchronized List<ModelEntry> models() {
        return Collections.unmodifiableList(new ArrayList<>(models));
    }

    /** The model in use; null: none. */
    public synchronized ModelEntry current() {
        return models.isEmpty() ? null : models.get(0);
    }

    /** Make it the one in use; it may be new. IOException: not saved, but in use. */
    public synchronized void use(ModelEntry model) throws IOException {
        models.removeIf(m -> m.uri.equals(model.uri));
        models.add(0, model);
        writeApp();
    }

    /** Forget it; the file stays. */
    public synchronized void remove(ModelEntry model) throws IOException {
        models.removeIf(m -> m.uri.equals(model.uri));
        writeApp();
    }

    public synchronized Settings settings() {
        return settings;
    }

    public synchronized void settings(Settings s) throws IOException {
        settings = s;
        writeApp();
    }

    private void writeApp() throws IOException {
        try {
            JSONArray list = new JSONArray();
            for (ModelEntry m : models) {
                list.put(m.toJson());
            }
            TextFile.write(appFile(), new JSONObject().put("settings", settings.toJson()).put("models", list).toString());
        } catch (JSONException e) {
            throw new IOException("save: app.json: " + e.getMessage(), e);
        }
    }

    // --- the chat ------------------------------------------------------------------------------------------------

    /** The chat as it was saved, a new one if there is none. IOException: it cannot be read, or is damaged. */
    public Conversation readChat() throws IOException {
        String text = TextFile.read(chatFile());
        try {
            return text == null ? new Conversation() : chat(new JSONObject(text));
        } catch (JSONException | IllegalArgumentException e) {
            throw new IOException("open: chat.json: got " + e.getMessage() + ", expected a chat; a new one begins", e);
        }
    }

    private static Conversation chat(JSONObject o) throws JSONException {
        JSONArray list = o.getJSONArray("messages");
        JSONArray ids = o.getJSONArray("tokens");
        String draft = o.getString("draft");
        List<ChatMessage> messages = new ArrayList<>();
        for (int i = 0; i < list.length(); ++i) {
            ChatMessage message = new ChatMessage(list.getJSONObject(i).getString("role"), list.getJSONObject(i).getString("content"));
            if (!message.role.equals(i % 2 == 0 ? "user" : "assistant")) {
                throw new IllegalArgumentException("message " + i + " of " + message.role);
            }
            messages.add(message);
        }
        int[] tokens = new int[ids.length()];
        for (int i = 0; i < tokens.length; ++i) {
            tokens[i] = ids.getInt(i);
        }
        Conversation chat = new Conversation(messages, tokens);
        if (!draft.isEmpty()) {
            chat.ask(draft);
        }
        chat.takeBack(); // that, or a question of a process that was killed before the first word
        return chat;
    }

    /** An answer that goes on is written as it is so far. */
    public void write(Conversation chat) throws IOException {
        try {
            JSONArray list = new JSONArray();
            for (ChatMessage m : chat.messages()) {
                if (!m.content.isEmpty() || m.role.equals("user")) {
                    list.put(new JSONObject().put("role", m.role).put("content", m.content));
                }
            }
            JSONArray ids = new JSONArray();
            for (int id : chat.tokens()) {
                ids.put(id);
            }
            TextFile.write(chatFile(), new JSONObject().put("messages", list).put("draft", chat.draft()).put("tokens", ids).toString());
        } catch (JSONException e) {
            throw new IOException("save: chat.json: " + e.getMessage(), e);
        }
    }
}
