package org.spikingbrain;

import java.io.IOException;
import java.util.concurrent.CountDownLatch;

/** Cancelled, the sequence is what it was after the last whole micro-batch, and goes on to the same text. */
final class Cancelling {
    private Cancelling() {}

    private static int[] prompt(int n) {
        int[] out = new int[n];
        for (int i = 0; i < n; ++i) {
            out[i] = (i * 7) % 250;
        }
        return out;
    }

    /** model: in the middle of a prompt, from its progress and from another thread. */
    static void prefill(String[] a) throws Exception {
        int[] prompt = prompt(600);
        try (SpikingBrain model = Setup.load(a[0]); Session session = model.newSession(Setup.small()); Session other = model.newSession(Setup.small())) {
            Run.out("failure", Run.failure(() -> session.eval(prompt, (done, total) -> {
                if (done == 96) {
                    session.cancel();
                }
            })));
            Run.out("held", session.nTokens());
            Generation again = session.generate(prompt, Setup.GREEDY, null);
            String text = Setup.read(again);
            Run.out("evaluated", again.timings().nPromptEvaluated);
            Run.out("exact", text.equals(Setup.read(other.generate(prompt, Setup.GREEDY, null))));
            session.cancel(); // nothing under way: no effect
            session.eval(new int[] { 1 }, null);
            Run.out("idle", session.nTokens());
        }
    }

    /** model: asked from another thread while one long micro-batch is computed; the time until it stopped, beside that of the whole. */
    static void inside(String[] a) throws Exception {
        int n = Integer.parseInt(a[1]);
        try (SpikingBrain model = Setup.load(a[0]);
             Session session = model.newSession(new SessionOptions().nThreads(1).nBatch(n).nUbatch(n))) {
            session.eval(prompt(8), null);
            long start = System.nanoTime();
            session.eval(prompt(n), null);
            long whole = System.nanoTime() - start;
            session.reset();
            session.eval(prompt(8), null);

            long[] asked = new long[1];
            Thread canceller = new Thread(() -> {
                try {
                    Thread.sleep(Math.max(1, whole / 10_000_000)); // a tenth of it
                } catch (InterruptedException e) {
                    throw new IllegalStateException(e);
                }
                asked[0] = System.nanoTime();
                session.cancel();
            });
            canceller.start();
            String failure = Run.failure(() -> session.eval(prompt(n), null));
            long stopped = System.nanoTime();
            canceller.join();
            Run.out("failure", failure);
            Run.out("held", session.nTokens());
            Run.out("whole_ms", whole / 1e6);
            Run.out("stop_ms", (stopped - asked[0]) / 1e6);
            String after = Setup.read(session.generate(prompt(8), Setup.GREEDY, null));
            session.reset();
            Run.out("exact", after.equals(Setup.read(session.generate(prompt(8), Setup.GREEDY, null))));
        }
    }

    /** model: in the middle of an answer, from another thread; then the same prompt and what was said goes on as if nothing had been. */
    static void generation(String[] a) throws Exception {
        try (SpikingBrain model = Setup.load(a[0]); Session session = model.newSession(Setup.small())) {
            GenerateOptions o = new GenerateOptions().temperature(0).maxTokens(60);
            int[] prompt = model.tokenize("the", true, true);
            Generation whole = session.generate(prompt, o, null);
            Setup.read(whole);
            session.reset();

            Generation cut = session.generate(prompt, o, null);
            CountDownLatch some = new CountDownLatch(8);
            Thread canceller = new Thread(() -> {
                try {
                    some.await();
                } catch (InterruptedException e) {
                    throw new IllegalStateException(e);
                }
                session.cancel();
            });
            canceller.start();
            Run.out("failure", Run.failure(() -> {
                while (cut.hasNext()) {
                    cut.next();
                    some.countDown();
                    if (some.getCount() == 0) {
                        canceller.join();
                    }
                }
            }));
            int n = cut.tokens().length;
            Run.out("reason", cut.finishReason());
            Run.out("after", Run.failure(() -> Run.out("has_next", cut.hasNext())));
            int[] more = java.util.Arrays.copyOf(prompt, prompt.length + n);
            System.arraycopy(cut.tokens(), 0, more, prompt.length, n);
            Generation rest = session.generate(more, new GenerateOptions().temperature(0).maxTokens(60 - n), null);
            Setup.read(rest);
            Run.out("said", n);
            Run.out("evaluated", rest.timings().nPromptEvaluated);
            int[] joined = java.util.Arrays.copyOf(cut.tokens(), n + rest.tokens().length);
            System.arraycopy(rest.tokens(), 0, joined, n, rest.tokens().length);
            Run.out("exact", java.util.Arrays.equals(joined, whole.tokens()));
        }
    }

    /** model: close() of the model from another thread, and of everything from a progress. */
    static void closing(String[] a) throws Exception {
        SpikingBrain model = Setup.load(a[0]);
        Session session = model.newSession(Setup.small());
        CountDownLatch begun = new CountDownLatch(1);
        String[] failure = new String[1];
        Thread worker = new Thread(() -> failure[0] = Run.failure(() -> {
            for (;;) {
                session.eval(prompt(300), (done, total) -> begun.countDown());
            }
        }));
        worker.start();
        begun.await();
        model.close();
        worker.join();
        Run.out("worker", failure[0]);
        session.cancel();
        session.close();
        model.close();

        try (SpikingBrain other = Setup.load(a[0]); Session nested = other.newSession(Setup.small())) {
            Run.out("nested", Run.failure(() -> nested.eval(prompt(100), (done, total) -> other.close())));
            Run.out("open", Run.failure(() -> nested.nTokens()));
        }
    }
}
