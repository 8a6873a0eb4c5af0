package org.spikingbrain;

import java.lang.ref.WeakReference;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

import org.jspecify.annotations.Nullable;

/**
 * A chat that grows: messages in turn, and the tokens that were read and written for them, so that each answer evaluates what is new and nothing
 * else, also in a new process with a restored session. Any thread may look at it while one reads an answer. A question that got no answer,
 * because it was stopped before the first word, is taken back: it becomes the draft.
 */
public final class Conversation {
    private final Answers answers = new Answers();
    private final List<ChatMessage> messages = new ArrayList<>();
    private final StringBuilder said = new StringBuilder(); // of the answer under way
    private int nAnswered; // messages up to the last answer; behind them what waits for the next
    private Generation answering; // null: none
    private boolean asking; // an answer is being prepared
    private String draft = "";
    private Turn turn; // null: that of kept, when the model is known
    private int[] kept;
    private WeakReference<SpikingBrain> turnOf = new WeakReference<>(null); // whose tokens they are

    /** An empty one. */
    public Conversation() {
        this(Collections.emptyList(), new int[0]);
    }

    /**
     * As {@link #messages} and {@link #tokens} of an earlier one gave them, also of another process. tokens: used where they are the beginning
     * of what is asked of the model; none: the chat is read again.
     */
    public Conversation(List<ChatMessage> messages, int[] tokens) {
        this.messages.addAll(Check.list("conversation: messages", messages));
        this.kept = Check.given("conversation: tokens", tokens).clone();
        this.nAnswered = this.messages.size();
        while (nAnswered > 0 && !this.messages.get(nAnswered - 1).role.equals("assistant")) {
            --nAnswered;
        }
    }

    // --- asking --------------------------------------------------------------------------------------------------

    /** A question, a system message or a tool's result, for the next answer. IllegalStateException: an answer is under way. */
    public synchronized void add(ChatMessage message) {
        Check.given("conversation: message", message);
        refuseAnswering("a message");
        messages.add(message);
        draft = "";
    }

    /** The user's question. */
    public void ask(String text) {
        add(ChatMessage.user(Check.given("conversation: text", text)));
    }

    private void refuseAnswering(String what) {
        if (asking || answering != null) {
            throw new IllegalStateException("conversation: got " + what + ", expected the answer before it to end; do wait, or close it");
        }
    }

    /**
     * Answers what was added. The stream's end, also an early one by close(), appends the answer.
     *
     * @param progress of the prompt; null: none
     * @throws IllegalStateException    an answer is under way, or nothing was added since the last
     * @throws IllegalArgumentException see {@link Session#chat}; what was added stays: take it back or change the options
     */
    public Generation answer(Session session, GenerateOptions options, @Nullable Progress progress) {
        Check.given("conversation: session", session);
        Check.given("conversation: options", options);
        List<ChatMessage> asked;
        synchronized (this) {
            refuseAnswering("a question");
            if (waiting().stream().allMatch(m -> m.role.equals("system"))) {
                throw new IllegalStateException("conversation: got nothing to answer, expected a message; add one");
            }
            asked = new ArrayList<>(messages);
            said.setLength(0);
            asking = true;
        }
        Generation made = null;
        try {
            made = session.chat("conversation", asked, options, progress, answers);
            return made;
        } finally {
            synchronized (this) {
                answering = made;
                asking = false;
            }
        }
    }

    /** The user's messages since the last answer, back: the text becomes the draft; what else was added stays. IllegalStateException: an answer is under way. */
    public synchronized void takeBack() {
        refuseAnswering("a wish to take back");
        forgetQuestion();
    }

    private void forgetQuestion() {
        for (ChatMessage m : waiting()) {
            draft = m.role.equals("user") ? m.content : draft;
        }
        waiting().removeIf(m -> m.role.equals("user"));
    }

    private List<ChatMessage> waiting() {
        return messages.subList(nAnswered, messages.size());
    }

    // --- looking -------------------------------------------------------------------------------------------------

    /** With the answer so far, if one is under way. */
    public synchronized List<ChatMessage> messages() {
        List<ChatMessage> out = new ArrayList<>(messages);
        if (answering != null) {
            out.add(ChatMessage.assistant(said.toString()));
        }
        return Collections.unmodifiableList(out);
    }

    /** Tokens read and written for the messages, those of the answer so far among them; none: not known. */
    public int[] tokens() {
        Generation now;
        synchronized (this) {
            if (answering == null || said.length() == 0) {
                return turn == null ? kept.clone() : turn.ids();
            }
            now = answering;
        }
        return now.allTokens();
    }

    /** The user's text that was taken back; empty: none. */
    public synchronized String draft() {
        return draft;
    }

    /** The same, once. */
    public synchronized String takeDraft() {
        String out = draft;
        draft = "";
        return out;
    }

    // --- told by the answer --------------------------------------------------------------------------------------

    private final class Answers implements Answering {
        @Override
        public Turn turn(SpikingBrain model) {
            synchronized (Conversation.this) {
                if (turnOf.get() != model) {
                    turn = Turn.of(model, turn == null ? kept : turn.ids());
                    turnOf = new WeakReference<>(model);
                }
                return turn;
            }
        }

        @Override
        public void said(String piece) {
            synchronized (Conversation.this) {
                said.append(piece);
            }
        }

        @Override
        public void ended(Generation answer, Turn itsTurn) {
            synchronized (Conversation.this) {
                ChatMessage whole = answer.message();
                if (answer.finishReason() != Generation.FinishReason.TOOL_CALLS) { // cut short inside of a call, which no template can show
                    whole = new ChatMessage(whole.role, whole.content, whole.reasoning, Collections.emptyList(), null);
                }
                answering = null;
                if (whole.content.isEmpty() && whole.toolCalls.isEmpty()) {
                    forgetQuestion();
                    return;
                }
                turn = itsTurn;
                messages.add(whole);
                nAnswered = messages.size();
            }
        }
    }
}
