package org.spikingbrain;

import java.io.File;
import java.io.IOException;

/** Bad input: an exception with our message each time. */
final class Errors {
    private Errors() {}

    static void files(String[] a) {
        for (String file : a) {
            Run.out("load", Run.failure(() -> Setup.load(file).close()));
        }
    }

    static void arguments(String[] a) throws IOException {
        try (SpikingBrain model = Setup.load(a[0]); Session session = model.newSession(Setup.small().nCtx(16))) {
            int n = model.nVocab();
            Run.out("e", Run.failure(() -> session.eval(new int[] { 1, n }, null)));
            Run.out("e", Run.failure(() -> session.eval(new int[] { -1 }, null)));
            Run.out("e", Run.failure(() -> session.eval(new int[0], null)));
            Run.out("e", Run.failure(() -> session.eval(null, null)));
            Run.out("e", Run.failure(() -> session.eval(new int[17], null)));
            Run.out("e", Run.failure(() -> session.generate(new int[16], Setup.GREEDY, null)));
            Run.out("e", Run.failure(() -> session.generate("", Setup.GREEDY, null)));
            Run.out("e", Run.failure(() -> session.generate("the", null, null)));
            Run.out("e", Run.failure(() -> model.detokenize(new int[] { n }, true)));
            Run.out("e", Run.failure(() -> model.tokenize(null, true, true)));
            Run.out("e", Run.failure(() -> new GenerateOptions().topP(1.5)));
            Run.out("e", Run.failure(() -> new GenerateOptions().temperature(Double.NaN)));
            Run.out("e", Run.failure(() -> new GenerateOptions().repeatPenalty(0)));
            Run.out("e", Run.failure(() -> new GenerateOptions().seed(1L << 32)));
            Run.out("e", Run.failure(() -> new GenerateOptions().stop("")));
            Run.out("e", Run.failure(() -> new SessionOptions().nThreads(513)));
            Run.out("e", Run.failure(() -> new SessionOptions().nUbatch(0)));
            Run.out("e", Run.failure(() -> new ModelOptions().spikeK(-1.0)));
            Run.out("e", Run.failure(() -> new ChatMessage("", "x")));
            Run.out("e", Run.failure(() -> SpikingBrain.load(-1, new ModelOptions())));
            Run.out("tokens", session.nTokens());
        }
    }

    /** n_ctx bounds prompt plus answer. */
    static void nCtx(String[] a) throws IOException {
        try (SpikingBrain model = Setup.load(a[0]); Session session = model.newSession(Setup.small().nCtx(16))) {
            Generation answer = session.generate(new int[10], new GenerateOptions().temperature(0), null);
            Setup.read(answer);
            Run.out("reason", answer.finishReason());
            Run.out("total", 10 + answer.tokens().length);
        }
    }

    static void closed(String[] a) throws IOException {
        SpikingBrain model = Setup.load(a[0]);
        Session session = model.newSession(Setup.small());
        Generation stream = session.generate("the", Setup.GREEDY, null);
        stream.next();
        session.close();
        session.close();
        Run.out("e", Run.failure(() -> session.eval(new int[] { 1 }, null)));
        Run.out("e", Run.failure(() -> session.nTokens()));
        Run.out("e", Run.failure(() -> session.snapshot(new File("/tmp/x"))));
        Run.out("e", Run.failure(() -> stream.hasNext()));
        Session second = model.newSession(Setup.small());
        model.close();
        model.close();
        Run.out("e", Run.failure(() -> second.reset()));
        Run.out("e", Run.failure(() -> model.newSession(Setup.small())));
        Run.out("e", Run.failure(() -> model.tokenize("a", true, true)));
        session.cancel();
        Run.out("n_vocab", model.nVocab()); // what was read stays
    }

    /** model, snapshot: whatever can be closed, twice */
    static void closeTwice(String[] a) throws IOException {
        SpikingBrain model = Setup.load(a[0]);
        Session session = model.newSession(Setup.small());
        Generation answer = session.generate("the", Setup.GREEDY, null);
        answer.next();
        session.snapshot(new File(a[1]));
        SnapshotFile snapshot = SnapshotFile.load(new File(a[1]));
        NativeMemory memory = new NativeMemory(1 << 20);
        Parallel parallel = model.newParallel(Setup.small(), 1);
        for (int i = 0; i < 2; ++i) {
            memory.close();
            snapshot.close();
            answer.close();
            session.close();
            parallel.close();
            model.close();
        }
        parallel.cancel();
        session.cancel();
        Run.out("e", Run.failure(memory::bytes));
        Run.out("all", true);
    }

    /** A session that no memory can hold. */
    static void memory(String[] a) throws IOException {
        try (SpikingBrain model = Setup.load(a[0]); Session small = model.newSession(Setup.small())) {
            int n = Integer.parseInt(a[1]);
            Run.out("e", Run.failure(() -> model.newSession(new SessionOptions().nThreads(1).nBatch(n).nUbatch(n))));
            small.eval(new int[] { 1 }, null);
            Run.out("tokens", small.nTokens());
        }
    }

    /** Options that mean nothing to a model that does not spike, or is another. */
    static void spikes(String[] a) throws IOException {
        Run.out("e", Run.failure(() -> Setup.load(a[0], new ModelOptions().spikeK(2.0)).close()));
        Run.out("e", Run.failure(() -> Setup.load(a[0], new ModelOptions().spike(false).spikeK(2.0)).close()));
        try (SpikingBrain model = Setup.load(a[0]); Session session = model.newSession(Setup.small())) {
            Run.out("e", Run.failure(() -> model.newSession(Setup.small().spikeStats(true))));
            Run.out("e", Run.failure(session::spikeStats));
            Run.out("spiking", model.spiking());
        }
    }

    /** model, text file, spike, k: the statistics of the text. */
    static void stats(String[] a) throws IOException {
        try (SpikingBrain model = Setup.load(a[0], new ModelOptions().spike(true).spikeK(Double.valueOf(a[2])));
             Session session = model.newSession(Setup.small().nUbatch(512).spikeStats(true))) {
            session.eval(new int[] { 1, 2 }, null);
            session.resetSpikeStats();
            session.reset();
            session.eval(model.tokenize(Setup.text(a[1]), true, true), null);
            SpikeStats stats = session.spikeStats();
            Run.out("head", new long[] { stats.nTokens(), stats.nRefused(), stats.inputs.size() });
            Run.out("scope", stats.scope);
            CountHistogram m = stats.model();
            Run.out("counts", new long[] { m.n(), m.largest(), m.nOver(), m.spikes() });
            for (double x : new double[] { m.shareTo7(), m.shareAbove16(), m.silentShare(), m.meanSpikes(), m.sparsity(), m.sparsityTo7() }) {
                Run.out("figure", x);
            }
            for (SpikeInput i : stats.inputs) {
                Run.out("input", i.layer + " " + i.name + " " + i.n + " " + i.nTokens + " " + i.projections);
                Run.out("bins", i.counts.bins());
            }
            stats.byLayer().forEach((layer, h) -> Run.out("layer", h.sparsity()));
        }
    }
}
