package org.spikingbrain;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Deque;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

import org.jspecify.annotations.Nullable;

/**
 * Answers to many prompts or chats, computed together in sequences of one context, each as if alone. What all prompts begin with is read once.
 * Made by {@link SpikingBrain#newParallel}; one call at a time, others wait. As Llama.generate_many of the Python package (parallel.py).
 */
public final class Parallel implements AutoCloseable {
    /** Most answers under way at once: of llama.cpp's 256 sequences one holds what all begin with, one a prompt that has more answers. */
    public static final int MAX = 254;

    /** Told while answers are computed, by the thread that computes; of the Parallel it may call cancel() alone. */
    public interface Listener {
        /** answer: its number in the list that the call returns. */
        void onText(int answer, String piece);

        void onEnd(Answer answer);
    }

    /** One of them. */
    public static final class Answer {
        /** Of its prompt or chat. */
        public final int index;
        public final String text;
        public final Generation.FinishReason finishReason;
        /** Of a chat, with tools that were called. */
        public final ChatMessage message;
        private final int[] tokens;

        Answer(int index, String text, int[] tokens, Generation.FinishReason finishReason, ChatMessage message) {
            this.index = index;
            this.text = text;
            this.tokens = tokens;
            this.finishReason = finishReason;
            this.message = message;
        }

        /** Without the end-of-generation token; a copy. */
        public int[] tokens() {
            return tokens.clone();
        }
    }

    private final SpikingBrain model;
    private final NativeSession own;
    private final Limits limits;
    private final int lastN;
    private final int nParallel;

    Parallel(SpikingBrain model, long modelHandle, SessionOptions o, int nParallel) {
        this.model = model;
        this.lastN = o.lastNTokens;
        this.nParallel = nParallel;
        own = new NativeSession("parallel", modelHandle, o, nParallel + 2);
        limits = new Limits(model, own.use(Native::limits), o);
    }

    /** End what is under way, wait for it, free the memory. Calling it again is harmless. */
    @Override
    public void close() {
        own.close();
        model.forget(this);
    }

    /** End what is under way, from any thread; it throws {@link CancelledException}. */
    public void cancel() {
        own.cancel();
    }

    /**
     * n answers to each prompt, in the prompts' order, n after one another. The seed is the first answer's; the others' follow it.
     *
     * @param listener null: none
     * @throws IllegalArgumentException an empty prompt, one that n_ctx has no room for, tools or logprobs
     * @throws CancelledException       see {@link #cancel}; none of the answers is there then
     */
    public List<Answer> generate(List<String> prompts, GenerateOptions options, int n, @Nullable Listener listener) {
        List<String> texts = Check.list("parallel: prompts", prompts);
        GenerateOptions o = checked(options);
        o.refuseTools("parallel");
        Check.range("parallel: n", n, 1, Integer.MAX_VALUE);
        Constraint constraint = Constraint.of(o.grammar);
        List<Job> jobs = new ArrayList<>();
        for (int i = 0; i < texts.size(); ++i) {
            int[] ids = limits.prompt("parallel", model.tokenize(texts.get(i), true, true));
            for (int k = 0; k < n; ++k) {
                jobs.add(new Job(jobs.size(), i, ids, o, constraint, o.stop, AnswerReader.ofText()));
            }
        }
        return run(jobs, o, listener);
    }

    /** An answer to each chat. Errors: see generate. */
    public List<Answer> chat(List<List<ChatMessage>> chats, GenerateOptions options, @Nullable Listener listener) {
        GenerateOptions o = checked(options);
        List<Job> jobs = new ArrayList<>();
        for (List<ChatMessage> messages : Check.list("parallel: chats", chats)) {
            ChatPrompt asked = ChatPrompt.of("parallel", model, messages, o, true);
            List<String> stops = new ArrayList<>(o.stop);
            stops.addAll(asked.stops);
            int[] ids = limits.prompt("parallel", model.tokenize(asked.text, true, true));
            jobs.add(new Job(jobs.size(), jobs.size(), ids, o, asked.constraint, stops, asked.reader()));
        }
        return run(jobs, o, listener);
    }

    private GenerateOptions checked(GenerateOptions options) {
        GenerateOptions o = Check.given("parallel: options", options).of("parallel", model);
        Check.that(o.logprobs < 0, "parallel: logprobs: got " + o.logprobs + ", expected none; use a session");
        return o;
    }

    // --- an answer under way -------------------------------------------------------------------------------------

    private final class Job {
        final int number;
        final int index;
        final int[] prompt;
        final int maxTokens;
        final Constraint constraint;
        final TextStream stream;
        final AnswerReader reader;
        final StringBuilder text = new StringBuilder();
        int[] tokens = new int[16];
        int n;
        Generation.FinishReason finishReason; // null: it goes on

        Job(int number, int index, int[] prompt, GenerateOptions o, Constraint constraint, List<String> stops, AnswerReader reader) {
            this.number = number;
            this.index = index;
            this.prompt = prompt;
            this.maxTokens = o.maxTokens > 0 ? o.maxTokens : limits.defaultMaxTokens(prompt.length);
            this.constraint = constraint;
            this.stream = new TextStream(stops);
            this.reader = reader;
        }

        int[] last() {
            return new int[] { tokens[n - 1] };
        }

        int[] seen() {
            return Arrays.copyOfRange(prompt, Math.max(0, prompt.length - lastN), prompt.length);
        }

        /** A token was drawn. */
        void take(int token, Listener listener) {
            if (model.isEog(token)) {
                finishReason = Generation.FinishReason.STOP;
            } else {
                tokens = n == tokens.length ? Arrays.copyOf(tokens, 2 * n) : tokens;
                tokens[n++] = token;
                say(reader.push(stream.push(Constraint.piece(constraint, model, token))), listener);
                boolean full = n == maxTokens || prompt.length + n >= limits.nCtx;
                finishReason = stream.stopped() ? Generation.FinishReason.STOP : full ? Generation.FinishReason.LENGTH : null;
            }
            if (finishReason != null) {
                end(listener);
            }
        }

        private void end(Listener listener) {
            boolean whole = finishReason == Generation.FinishReason.STOP;
            say(reader.push(stream.finish()), listener);
            say(reader.end(whole), listener);
            finishReason = whole && reader.hasCalls() ? Generation.FinishReason.TOOL_CALLS : finishReason;
            if (listener != null) {
                listener.onEnd(answer());
            }
        }

        private void say(String piece, Listener listener) {
            text.append(piece);
            if (listener != null && !piece.isEmpty()) {
                listener.onText(number, piece);
            }
        }

        Answer answer() {
            return new Answer(index, text.toString(), Arrays.copyOf(tokens, n), finishReason, reader.message());
        }
    }

    // --- all of them ---------------------------------------------------------------------------------------------

    private List<Answer> run(List<Job> jobs, GenerateOptions o, Listener listener) {
        if (!jobs.isEmpty()) {
            long run = own.newRun();
            own.use(handle -> {
                new Run(handle, run, o.drawSeed(), o, listener).all(jobs);
                return null;
            });
        }
        List<Answer> out = new ArrayList<>();
        for (Job job : jobs) {
            out.add(job.answer());
        }
        return Collections.unmodifiableList(out);
    }

    /** Sequences 0 to nParallel - 1 are slots, then what all prompts begin with, then the prompt that has answers waiting. */
    private final class Run {
        private final long handle;
        private final long run;
        private final long firstSeed;
        private final GenerateOptions options;
        private final Listener listener;
        private final int common = nParallel;
        private final int whole = nParallel + 1;
        private int nCommon;
        private int held = -1; // index of the prompt in `whole`

        Run(long handle, long run, long firstSeed, GenerateOptions options, Listener listener) {
            this.handle = handle;
            this.run = run;
            this.firstSeed = firstSeed;
            this.options = options;
            this.listener = listener;
        }

        void all(List<Job> jobs) {
            for (int seq = 0; seq < nParallel + 2; ++seq) {
                Native.clear(handle, seq);
            }
            nCommon = commonPrefix(jobs);
            if (nCommon > 0) {
                read(Collections.singletonMap(common, Arrays.copyOf(jobs.get(0).prompt, nCommon)));
            }
            Deque<Job> waiting = new ArrayDeque<>(jobs);
            Map<Integer, Job> running = new LinkedHashMap<>();
            while (!waiting.isEmpty() || !running.isEmpty()) {
                own.checkRun(run);
                Map<Integer, Job> begun = begin(running, waiting);
                Map<Integer, int[]> next = new LinkedHashMap<>();
                running.forEach((slot, job) -> next.put(slot, job.last()));
                read(next);
                running.forEach((slot, job) -> draw(slot, job, job.last()));
                begun.forEach((slot, job) -> draw(slot, job, job.seen()));
                running.putAll(begun);
                running.values().removeIf(job -> job.finishReason != null);
            }
        }

        private void draw(int slot, Job job, int[] seen) {
            Native.accept(handle, slot, seen);
            job.take(Native.chooseToken(handle, slot), listener);
        }

        /** Makes free slots the prompts of jobs that wait. */
        private Map<Integer, Job> begin(Map<Integer, Job> running, Deque<Job> waiting) {
            Map<Integer, Job> begun = new LinkedHashMap<>();
            for (int slot = 0; slot < nParallel && !waiting.isEmpty(); ++slot) {
                if (!running.containsKey(slot)) {
                    begun.put(slot, waiting.remove());
                }
            }
            Map<Integer, Integer> first = new LinkedHashMap<>(); // slot that reads a prompt, by its index
            Map<Integer, int[]> todo = new LinkedHashMap<>();
            begun.forEach((slot, job) -> {
                if (job.index != held && !first.containsKey(job.index)) {
                    first.put(job.index, slot);
                    Native.copy(handle, common, slot);
                    todo.put(slot, Arrays.copyOfRange(job.prompt, nCommon, job.prompt.length));
                }
            });
            read(todo);
            begun.forEach((slot, job) -> {
                int from = first.getOrDefault(job.index, whole);
                if (from != slot) {
                    Native.copy(handle, from, slot);
                }
                options.newChain(handle, slot, firstSeed + job.number, lastN, job.constraint);
            });
            if (!waiting.isEmpty() && first.containsKey(waiting.peek().index)) {
                held = waiting.peek().index;
                Native.copy(handle, first.get(held), whole);
            }
            return begun;
        }

        /** Appends tokens to sequences, equally many of each at a time. */
        private void read(Map<Integer, int[]> todo) {
            Map<Integer, int[]> left = new LinkedHashMap<>(todo);
            while (!left.isEmpty()) {
                int least = left.values().stream().mapToInt(ids -> ids.length).min().getAsInt();
                int share = Math.max(1, Math.min(limits.step / left.size(), least));
                int[] seqs = left.keySet().stream().mapToInt(seq -> seq).toArray();
                int[] tokens = new int[seqs.length * share];
                int at = 0;
                for (Map.Entry<Integer, int[]> e : left.entrySet()) {
                    System.arraycopy(e.getValue(), 0, tokens, at, share);
                    at += share;
                    e.setValue(Arrays.copyOfRange(e.getValue(), share, e.getValue().length));
                }
                Native.decode(handle, seqs, tokens, 0, share, run);
                left.values().removeIf(ids -> ids.length == 0);
            }
        }
    }

    /** Tokens that all prompts begin with; at least one of each is left out. */
    private static int commonPrefix(List<Job> jobs) {
        int[] one = jobs.get(0).prompt;
        int n = one.length - 1;
        for (Job job : jobs) {
            n = Math.min(n, job.prompt.length - 1);
            int at = 0;
            while (at < n && job.prompt[at] == one[at]) {
                ++at;
            }
            n = at;
        }
        return n;
    }
}
