package org.spikingbrain.app.core;

import org.json.JSONArray;
import org.json.JSONException;
import org.json.JSONObject;
import org.spikingbrain.ChatMessage;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

/**
 * Messages in turn, the user's first. The inference thread writes, the screen reads. A question that got no answer, because it was stopped
 * before the first word, or the process was killed, is taken back: it becomes the draft.
 */
public final class Chat {
    private final List<ChatMessage> done = new ArrayList<>(); // whole turns
    private String question; // being answered
    private final StringBuilder answer = new StringBuilder();
    private String draft = "";
    private int[] tokens = {}; // of the turns, as they were read and written

    /** A question; its answer follows. IllegalStateException: one is being answered. */
    synchronized void ask(String text) {
        if (question != null) {
            throw new IllegalStateException("chat: got a question, expected the answer to the one before; do wait or stop it");
        }
        question = text;
        answer.setLength(0);
        draft = "";
    }

    synchronized void say(String piece) {
        answer.append(piece);
    }

    /** The answer has ended, maybe early; whole: all that the model said. */
    synchronized void end(String whole) {
        if (whole.isEmpty()) {
            takeBack();
            return;
        }
        done.add(new ChatMessage("user", question));
        done.add(new ChatMessage("assistant", whole));
        question = null;
    }

    /** The question got no answer. */
    synchronized void takeBack() {
        draft = question;
        question = null;
    }

    /** What the model is asked: all turns and the question. */
    synchronized List<ChatMessage> prompt() {
        List<ChatMessage> out = new ArrayList<>(done);
        out.add(new ChatMessage("user", question));
        return out;
    }

    /** Tokens of the turns that the session holds or held; none: not known. */
    synchronized int[] tokens() {
        return tokens;
    }

    synchronized void tokens(int[] ids) {
        tokens = ids;
    }

    /** What the screen shows: with the answer so far. */
    public synchronized List<ChatMessage> messages() {
        List<ChatMessage> out = new ArrayList<>(done);
        if (question != null) {
            out.add(new ChatMessage("user", question));
            out.add(new ChatMessage("assistant", answer.toString()));
        }
        return Collections.unmodifiableList(out);
    }

    /** A question that was taken back, once; empty: none. */
    public synchronized String takeDraft() {
        String out = draft;
        draft = "";
        return out;
    }

    /** An answer that goes on is written as it is so far. */
    synchronized JSONObject toJson() throws JSONException {
        JSONArray list = new JSONArray();
        for (ChatMessage m : messages()) {
            if (!m.content.isEmpty() || m.role.equals("user")) {
                list.put(new JSONObject().put("role", m.role).put("content", m.content));
            }
        }
        JSONArray ids = new JSONArray();
        for (int id : tokens) {
            ids.put(id);
        }
        return new JSONObject().put("messages", list).put("draft", draft).put("tokens", ids);
    }

    /** JSONException, IllegalArgumentException: no chat. */
    static Chat fromJson(JSONObject o) throws JSONException {
        Chat chat = new Chat();
        JSONArray list = o.getJSONArray("messages");
        JSONArray ids = o.getJSONArray("tokens");
        chat.draft = o.getString("draft");
        chat.tokens = new int[ids.length()];
        for (int i = 0; i < chat.tokens.length; ++i) {
            chat.tokens[i] = ids.getInt(i);
        }
        for (int i = 0; i < list.length(); ++i) {
            String role = list.getJSONObject(i).getString("role");
            String content = list.getJSONObject(i).getString("content");
            if (!role.equals(i % 2 == 0 ? "user" : "assistant")) {
                throw new IllegalArgumentException("message " + i + " of " + role);
            }
            if (i == list.length() - 1 && i % 2 == 0) {
                chat.draft = content; // killed before the first word
            } else {
                chat.done.add(new ChatMessage(role, content));
            }
        }
        return chat;
    }
}
