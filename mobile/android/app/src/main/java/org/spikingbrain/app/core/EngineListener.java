package org.spikingbrain.app.core;

/** What the engine tells; called by the inference thread. */
public interface EngineListener {
    void onState(Engine.State state);

    /** The chat, or the progress of its prompt. */
    void onChange();

    /** Something the user should read. */
    void onMessage(String text);

    /** The model does not fit: the user may load it all the same. */
    void onRefused(ModelSource source, String sentence);
}
