package org.spikingbrain;

/** Whose chat an answer belongs to. */
interface Answering {
    /** What is known of the chat's tokens. */
    Turn turn(SpikingBrain model);

    /** A piece of the answer; by the thread that reads it. */
    void said(String piece);

    /** The answer has ended, maybe early; turn: what it read and wrote, null: the prompt was not read. */
    void ended(Generation answer, Turn turn);
}
