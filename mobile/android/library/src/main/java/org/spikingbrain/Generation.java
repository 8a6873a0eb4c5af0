package org.spikingbrain;

import java.io.ByteArrayOutputStream;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Iterator;
import java.util.List;
import java.util.NoSuchElementException;

import org.jspecify.annotations.Nullable;

/**
 * A stream of text: pieces that join to the answer, none of them empty, none with a part of a character or of a stop string. Made by
 * {@link Session#generate} and {@link Session#chat}; used by one thread. The first hasNext() reads the prompt.
 */
public final class Generation implements Iterator<String>, AutoCloseable {
    /** Why it ended. */
    public enum FinishReason {
        /** An end-of-generation token or a stop string. */
        STOP,
        /** maxTokens, the limit of an answer for which none was named, or n_ctx. */
        LENGTH,
        /** {@link Session#cancel}. */
        CANCELLED,
        /** The model called tools, and waits for their results: {@link Generation#message}. */
        TOOL_CALLS
    }

    private final Session session;
    private final SpikingBrain model;
    private final int[] prompt;
    private final GenerateOptions options;
    private final Constraint constraint;
    private final int maxTokens;
    private final String chat; // the prompt's text, of a chat that may grow
    private final Answering chatOf; // null: of none
    private final TextStream stream;
    private final AnswerReader reader;
    private final StringBuilder text = new StringBuilder();
    private final ByteArrayOutputStream said = new ByteArrayOutputStream();
    private final List<TokenLogprobs> logprobs = new ArrayList<>();
    private final long run;
    private final long[] epoch = new long[1];
    private Progress progress; // kept no longer than the prompt takes: it may hold a screen
    private int[] answer = new int[16];
    private volatile int nAnswer; // written after the token: others may read what was said so far
    private int nEvaluated;
    private boolean begun;
    private boolean ended;
    private FinishReason finishReason;
    private String next;
    private long promptNs;
    private long generateNs;

    /** options: its own copy. */
    Generation(Session session, int[] prompt, GenerateOptions options, Constraint constraint, Progress progress) {
        this(session, prompt, options, constraint, options.stop, AnswerReader.ofText(), progress, null, null);
    }

    Generation(Session session, int[] prompt, GenerateOptions options, ChatPrompt asked, List<String> stops, Progress progress, Answering chatOf) {
        this(session, prompt, options, asked.constraint, stops, asked.reader(), progress, asked.text, chatOf);
    }

    private Generation(Session session, int[] prompt, GenerateOptions options, Constraint constraint, List<String> stops, AnswerReader reader, Progress progress,
        String chat, Answering chatOf) {
        this.session = session;
        this.model = session.model();
        this.prompt = prompt;
        this.options = options;
        this.constraint = constraint;
        this.maxTokens = options.maxTokens > 0 ? options.maxTokens : session.defaultMaxTokens(prompt.length);
        this.progress = progress;
        this.chat = chat;
        this.chatOf = chatOf;
        this.stream = new TextStream(stops);
        this.reader = reader;
        this.run = session.newRun();
    }

    /**
     * Computes until a piece of text is certain or the answer ends.
     *
     * @throws CancelledException    see {@link Session#cancel}; what was said until then stays in {@link #text}
     * @throws SpikingBrainException another call changed the session's sequence meanwhile
     */
    @Override
    public boolean hasNext() {
        while (next == null && !ended) {
            try {
                advance();
            } catch (CancelledException e) {
                end(FinishReason.CANCELLED);
                throw e;
            }
        }
        return next != null;
    }

    /** The next piece. NoSuchElementException: the answer has ended. Errors: see hasNext. */
    @Override
    public String next() {
        if (!hasNext()) {
            throw new NoSuchElementException("generation: got no further piece, expected hasNext() to be asked first");
        }
        String out = next;
        next = null;
        return out;
    }

    private void advance() {
        long start = System.nanoTime();
        if (!begun) {
            Progress told = progress;
            progress = null;
            long[] read = session.readPrompt(prompt, options, constraint, told, run);
            nEvaluated = (int) read[0];
            epoch[0] = read[1];
            begun = true;
            promptNs = System.nanoTime() - start;
            return;
        }
        try {
            step();
        } finally {
            generateNs += System.nanoTime() - start;
        }
    }

    private void step() {
        TokenLogprobs[] thought = new TokenLogprobs[1];
        int token = session.nextToken(nAnswer > 0 ? answer[nAnswer - 1] : -1, epoch, run, options.logprobs, thought);
        if (token < 0 || model.isEog(token)) {
            end(token < 0 ? FinishReason.LENGTH : FinishReason.STOP);
            return;
        }
        if (thought[0] != null) {
            logprobs.add(thought[0]);
        }
        answer = nAnswer == answer.length ? Arrays.copyOf(answer, 2 * nAnswer) : answer;
        answer[nAnswer] = token;
        ++nAnswer;
        byte[] piece = Constraint.piece(constraint, model, token);
        said.write(piece, 0, piece.length);
        say(reader.push(stream.push(piece)));
        if (stream.stopped() || nAnswer == maxTokens) {
            end(stream.stopped() ? FinishReason.STOP : FinishReason.LENGTH);
        }
    }

    private void say(String piece) {
        text.append(piece);
        next = piece.isEmpty() ? next : next == null ? piece : next + piece;
        if (chatOf != null && !piece.isEmpty()) {
            chatOf.said(piece);
        }
    }

    private void end(FinishReason reason) {
        if (ended) {
            return;
        }
        ended = true;
        progress = null;
        say(reader.push(stream.finish()));
        say(reader.end(reason == FinishReason.STOP));
        finishReason = reason == FinishReason.STOP && reader.hasCalls() ? FinishReason.TOOL_CALLS : reason;
        if (chatOf != null) {
            chatOf.ended(this, begun ? new Turn(chat + Prints.wholeText(said.toByteArray()), Turn.join(prompt, tokens())) : null);
        }
    }

    /** Ends the stream where it is; the session's sequence stays as it is. */
    @Override
    public void close() {
        end(FinishReason.CANCELLED);
        next = null;
    }

    /** All text so far, also what was held back of a stream that was cancelled; of a chat with tools without their calls. */
    public String text() {
        return text.toString();
    }

    /** Tokens of the answer so far, without the end-of-generation token; may be asked by any thread. */
    public int[] tokens() {
        int n = nAnswer;
        return Arrays.copyOf(answer, n);
    }

    /** Of the prompt and of the answer so far. */
    int[] allTokens() {
        return Turn.join(prompt, tokens());
    }

    /** Log probabilities of the answer's tokens so far; none without {@link GenerateOptions#logprobs}. */
    public List<TokenLogprobs> logprobs() {
        return Collections.unmodifiableList(new ArrayList<>(logprobs));
    }

    /** The assistant's message so far: what was said, and tools that were called. */
    public ChatMessage message() {
        return reader.message();
    }

    /** Why it ended, null while it goes on. */
    public @Nullable FinishReason finishReason() {
        return finishReason;
    }

    /** What it took so far. */
    public Timings timings() {
        return new Timings(prompt.length, nEvaluated, promptNs / 1e6, nAnswer, generateNs / 1e6);
    }
}
