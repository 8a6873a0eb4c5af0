package org.spikingbrain.app;

import android.content.Context;
import android.database.Cursor;
import android.net.Uri;
import android.provider.OpenableColumns;

import org.spikingbrain.AndroidFiles;
import org.spikingbrain.LoadProgress;
import org.spikingbrain.MemoryEstimate;
import org.spikingbrain.ModelOptions;
import org.spikingbrain.SessionOptions;
import org.spikingbrain.SpikingBrain;
import org.spikingbrain.app.core.ModelEntry;
import org.spikingbrain.app.core.ModelSource;

import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InputStream;

/** A document of the Storage Access Framework: opened as a descriptor and mapped, never copied. */
final class UriSource implements ModelSource {
    private static final String[] COLUMNS = { OpenableColumns.DISPLAY_NAME, OpenableColumns.SIZE };

    private final Context context;
    private final ModelEntry entry;

    UriSource(Context context, ModelEntry entry) {
        this.context = context;
        this.entry = entry;
    }

    /** Its name and size as its provider has them; some tell neither. */
    static ModelEntry describe(Context context, Uri uri) {
        String name = uri.getLastPathSegment();
        long bytes = 0;
        try (Cursor cursor = context.getContentResolver().query(uri, COLUMNS, null, null, null)) {
            if (cursor != null && cursor.moveToFirst()) {
                name = cursor.isNull(0) ? name : cursor.getString(0);
                bytes = cursor.isNull(1) ? 0 : cursor.getLong(1);
            }
        }
        return new ModelEntry(uri.toString(), name == null ? uri.toString() : name, bytes);
    }

    private Uri uri() {
        return Uri.parse(entry.uri);
    }

    @Override
    public ModelEntry entry() {
        return entry;
    }

    @Override
    public MemoryEstimate estimate(ModelOptions model, SessionOptions session) throws IOException {
        return AndroidFiles.estimate(context, uri(), model, session);
    }

    @Override
    public SpikingBrain load(ModelOptions options, LoadProgress progress) throws IOException {
        return AndroidFiles.load(context, uri(), options, progress);
    }

    @Override
    public InputStream read() throws IOException {
        InputStream in = context.getContentResolver().openInputStream(uri());
        if (in == null) {
            throw new FileNotFoundException("read: " + entry.name + ": got no file, expected one; do import it again");
        }
        return in;
    }

    @Override
    public long availableMemory() {
        return AndroidFiles.availableMemory(context);
    }
}
