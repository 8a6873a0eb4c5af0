package org.spikingbrain.app;

import android.app.Activity;
import android.graphics.Typeface;
import android.view.View;
import android.view.ViewGroup;
import android.widget.BaseAdapter;
import android.widget.TextView;

import org.spikingbrain.ChatMessage;

import java.util.Collections;
import java.util.List;

/** A chat's messages as rows; the user's are bold. */
final class ChatAdapter extends BaseAdapter {
    private final Activity activity;
    private List<ChatMessage> messages = Collections.emptyList();

    ChatAdapter(Activity activity) {
        this.activity = activity;
    }

    void show(List<ChatMessage> newMessages) {
        messages = newMessages;
        notifyDataSetChanged();
    }

    @Override
    public int getCount() {
        return messages.size();
    }

    @Override
    public Object getItem(int position) {
        return messages.get(position);
    }

    @Override
    public long getItemId(int position) {
        return position;
    }

    @Override
    public View getView(int position, View old, ViewGroup parent) {
        TextView row = (TextView) (old != null ? old : activity.getLayoutInflater().inflate(R.layout.message, parent, false));
        ChatMessage message = messages.get(position);
        row.setTypeface(null, message.role.equals("user") ? Typeface.BOLD : Typeface.NORMAL);
        row.setText(message.content);
        return row;
    }
}
