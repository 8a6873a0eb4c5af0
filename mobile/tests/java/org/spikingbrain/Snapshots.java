package org.spikingbrain;

import java.io.File;
import java.io.IOException;
import java.util.Arrays;

/** Snapshots, written and read in processes of their own. */
final class Snapshots {
    private Snapshots() {}

    private static ModelOptions options(String[] a, int at) {
        ModelOptions o = new ModelOptions();
        return a.length > at ? o.spike(Boolean.valueOf(a[at])).spikeK(a.length > at + 1 ? Double.valueOf(a[at + 1]) : null) : o;
    }

    /** model, prompt file, snapshot, spike, k: writes it after the prompt, then says how the answer goes on. */
    static void save(String[] a) throws IOException {
        try (SpikingBrain model = Setup.load(a[0], options(a, 3)); Session session = model.newSession(Setup.small())) {
            int[] prompt = model.tokenize(Setup.text(a[1]), true, true);
            session.eval(prompt, null);
            session.snapshot(new File(a[2]));
            try (SnapshotFile made = SnapshotFile.load(new File(a[2]))) {
                Run.out("fingerprint", made.fingerprint);
            }
            Run.out("tokenizer", model.tokenizerPrint());
            Run.out("n", prompt.length);
            Run.out("text", Setup.read(session.generate(prompt, Setup.GREEDY, null)));
        }
    }

    /** model, prompt file, snapshot, spike, k: the answer from it, and what had to be evaluated for the prompt. */
    static void restore(String[] a) throws IOException {
        try (SpikingBrain model = Setup.load(a[0], options(a, 3)); Session session = model.newSession(Setup.small())) {
            session.eval(new int[] { 5, 6 }, null); // is replaced
            Run.out("restore", Run.failure(() -> session.restore(new File(a[2]))));
            Run.out("held", session.nTokens());
            Generation answer = session.generate(Setup.text(a[1]), Setup.GREEDY, null);
            Run.out("text", Setup.read(answer));
            Run.out("evaluated", answer.timings().nPromptEvaluated);
        }
    }

    /** model, snapshots...: how each is refused; the sequence stays. */
    static void refuse(String[] a) throws IOException {
        try (SpikingBrain model = Setup.load(a[0]); Session session = model.newSession(Setup.small().nCtx(300))) {
            session.eval(new int[] { 5, 6 }, null);
            for (String file : Arrays.copyOfRange(a, 1, a.length)) {
                Run.out("failure", Run.failure(() -> session.restore(new File(file))));
                Run.out("tokens", session.tokens());
            }
        }
    }

    /** model, snapshot: writes it again and again until it is killed, or until there is no room. */
    static void forever(String[] a) throws IOException {
        try (SpikingBrain model = Setup.load(a[0]); Session session = model.newSession(Setup.small())) {
            for (int i = 0;; ++i) {
                session.eval(new int[] { i % 250, 1, 2 }, null);
                session.snapshot(new File(a[1]));
                Run.out("written", i);
            }
        }
    }

    /** model, snapshot: written once; the session goes on whether or not that works. */
    static void once(String[] a) throws IOException {
        try (SpikingBrain model = Setup.load(a[0]); Session session = model.newSession(Setup.small())) {
            session.eval(new int[300], null);
            Run.out("failure", Run.failure(() -> session.snapshot(new File(a[1]))));
            session.eval(new int[] { 1 }, null);
            Run.out("tokens", session.nTokens());
        }
    }

    /** model, snapshot, what the synchronising of a folder ends in: what is told, and that the file is the new one. */
    static void folderSync(String[] a) throws IOException {
        try (SpikingBrain model = Setup.load(a[0]); Session session = model.newSession(Setup.small()); Session other = model.newSession(Setup.small())) {
            File file = new File(a[1]);
            for (int i = 2; i < a.length; ++i) {
                session.eval(new int[] { 1, 2, 3 }, null);
                String why = a[i];
                WholeFile.folderSync = folder -> {
                    throw new IOException(why);
                };
                Run.out("failure", Run.failure(() -> session.snapshot(file)));
                other.restore(file);
                Run.out("new", other.nTokens() == session.nTokens() && file.getAbsoluteFile().getParentFile().list().length == 1);
            }
        }
    }

    /** model, snapshot, tokens: of a long sequence; what is known of it after a restore. */
    static void longer(String[] a) throws IOException {
        int[] prompt = new int[Integer.parseInt(a[2])];
        for (int i = 0; i < prompt.length; ++i) {
            prompt[i] = (i * 31) % 250;
        }
        try (SpikingBrain model = Setup.load(a[0]); Session session = model.newSession(Setup.small().nUbatch(256)); Session second = model.newSession(Setup.small())) {
            session.eval(prompt, null);
            session.snapshot(new File(a[1]));
            second.restore(new File(a[1]));
            int[] known = second.tokens();
            int unknown = 0;
            while (known[unknown] < 0) {
                ++unknown;
            }
            Run.out("unknown", unknown);
            Run.out("same_tail", Arrays.equals(Arrays.copyOfRange(known, unknown, known.length), Arrays.copyOfRange(prompt, unknown, prompt.length)));
            second.snapshot(new File(a[1] + ".second"));
            int[] more = Arrays.copyOf(prompt, prompt.length + 2);
            Generation extended = second.generate(more, Setup.GREEDY, null);
            extended.hasNext();
            Run.out("extended", extended.timings().nPromptEvaluated);
            more[0] += 1;
            Generation other = second.generate(more, Setup.GREEDY, null);
            other.hasNext();
            Run.out("other", other.timings().nPromptEvaluated);
        }
    }
}
