package org.spikingbrain.app.core;

import org.json.JSONException;
import org.json.JSONObject;

/** A model that the user imported: where it lies; it is never copied. */
public final class ModelEntry {
    /** A content URI, or a path. */
    public final String uri;
    /** As the document's provider names it. */
    public final String name;
    /** Size of the file; 0: not known. */
    public final long bytes;

    public ModelEntry(String uri, String name, long bytes) {
        this.uri = uri;
        this.name = name;
        this.bytes = bytes;
    }

    JSONObject toJson() throws JSONException {
        return new JSONObject().put("uri", uri).put("name", name).put("bytes", bytes);
    }

    static ModelEntry fromJson(JSONObject o) throws JSONException {
        return new ModelEntry(o.getString("uri"), o.getString("name"), o.getLong("bytes"));
    }
}
