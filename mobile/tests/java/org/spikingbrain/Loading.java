package org.spikingbrain;

import java.io.File;
import java.io.IOException;

/** Models: how they are loaded, what they take, how they end. */
final class Loading {
    private Loading() {}

    static void describe(String[] a) throws IOException {
        try (SpikingBrain model = Setup.load(a[0]); Session session = model.newSession(Setup.small())) {
            Run.out("architecture", model.metadata().get("general.architecture"));
            Run.out("n_vocab", model.nVocab());
            Run.out("size", model.modelSize());
            Run.out("state_bytes", session.stateBytes());
            Run.out("n_ctx", session.nCtx());
            Run.out("text", Setup.read(session.generate("the", Setup.GREEDY, null)));
            Run.out("maps", mapped());
        }
    }

    /** Bytes of GGUF files mapped into this process. */
    private static long mapped() throws IOException {
        long sum = 0;
        for (String line : java.nio.file.Files.readAllLines(new File("/proc/self/maps").toPath())) {
            if (line.endsWith(".gguf")) {
                String[] range = line.split("[- ]");
                sum += Long.parseLong(range[1], 16) - Long.parseLong(range[0], 16);
            }
        }
        return sum;
    }

    /** file, n_ctx, n_batch, n_ubatch, spike (none, true, false) */
    static void estimate(String[] a) throws IOException {
        ModelOptions options = new ModelOptions().spike(a[4].equals("none") ? null : Boolean.valueOf(a[4]));
        SessionOptions session = new SessionOptions().nCtx(Integer.parseInt(a[1])).nBatch(Integer.parseInt(a[2])).nUbatch(Integer.parseInt(a[3]));
        MemoryEstimate e = a[0].startsWith("fd:") ? SpikingBrain.estimate(Integer.parseInt(a[0].substring(3)), options, session)
            : SpikingBrain.estimate(new File(a[0]), options, session);
        Run.out("estimate", new long[] { e.model, e.state, e.compute, e.output, e.cache });
        Run.out("total", e.total());
        Run.out("two", e.total(2));
        Fit tight = e.fit(e.total() + Fit.RESERVE);
        Fit short1 = e.fit(e.total() + Fit.RESERVE - 1);
        Run.out("go", tight.ok);
        Run.out("no_go", short1.ok);
        Run.out("sentence", short1.sentence());
        Run.out("here", e.fit().ok);
        Run.out("available", e.fit().available);
    }

    /** file, bytes of memory: the sentence of a machine that has so many; what loading it here says. */
    static void phone(String[] a) throws IOException {
        MemoryEstimate e = SpikingBrain.estimate(new File(a[0]), new ModelOptions(), new SessionOptions());
        Run.out("estimate", new long[] { e.model, e.state, e.compute, e.output, e.cache });
        Run.out("sentence", e.fit(Long.parseLong(a[1])).sentence());
        Run.out("fits", e.fit(Long.parseLong(a[1])).ok);
        Run.out("short", SpikingBrain.estimate(new File(a[0]), new ModelOptions(), new SessionOptions().nCtx(4096)).cache);
        Run.out("failure", e.fit().ok ? "none" : Run.failure(() -> Setup.load(a[0]).close()));
    }

    /** A file whose estimate exceeds the machine: refused before anything is loaded. */
    static void tooLarge(String[] a) throws IOException {
        Run.out("failure", Run.failure(() -> Setup.load(a[0]).close()));
        Run.out("unchecked", Run.failure(() -> Setup.load(a[0], new ModelOptions().checkMemory(false)).close()));
    }

    /** file, cycles: anonymous memory after a fifth of them and at the end, in kB. */
    static void cycles(String[] a) throws IOException {
        int n = Integer.parseInt(a[1]);
        for (int i = 1; i <= n; ++i) {
            try (SpikingBrain model = Setup.load(a[0])) {
                Session session = model.newSession(Setup.small());
                session.eval(new int[] { 1, 2, 3 }, null); // and is closed with its model
            }
            if (i == n / 5) {
                System.gc();
                Run.out("early", Setup.rssAnonKb());
            }
        }
        System.gc();
        Run.out("late", Setup.rssAnonKb());
    }

    /** CPUs there are, folders... */
    static void threads(String[] a) {
        for (int i = 1; i < a.length; ++i) {
            Run.out("threads", Threads.count(new File(a[i]), Integer.parseInt(a[0])));
            Run.out("big", Threads.bigCores(new File(a[i])));
        }
    }

    /** model, a CPU: while it computes, and afterwards */
    static void affinity(String[] a) throws Exception {
        int[] prompt = new int[3000];
        File self = new File("/proc/thread-self/status");
        try (SpikingBrain model = Setup.load(a[0]); Session session = model.newSession(Setup.small().cpus(Integer.parseInt(a[1])));
             Session denied = model.newSession(Setup.small().cpus(1023)); Session anywhere = model.newSession(Setup.small().cpus())) {
            Run.out("before", allowed(self));
            boolean[] done = new boolean[1];
            boolean[] seen = new boolean[1];
            Thread watch = new Thread(() -> {
                while (!done[0] && !seen[0]) {
                    for (File task : new File("/proc/self/task").listFiles()) {
                        seen[0] |= a[1].equals(allowed(new File(task, "status")));
                    }
                    Thread.yield();
                }
            });
            watch.start();
            session.eval(prompt, null);
            done[0] = true;
            watch.join();
            Run.out("seen", seen[0]);
            Run.out("held", session.cpus());
            Run.out("after", allowed(self));
            denied.eval(new int[] { 1 }, null);
            Run.out("denied", denied.cpus());
            anywhere.eval(new int[] { 1 }, null);
            Run.out("anywhere", anywhere.cpus());
        }
    }

    private static String allowed(File status) {
        try {
            for (String line : java.nio.file.Files.readAllLines(status.toPath())) {
                if (line.startsWith("Cpus_allowed_list:")) {
                    return line.substring(18).trim();
                }
            }
        } catch (IOException e) {
            // a thread that has ended
        }
        return "";
    }

    /** model: told, ended, failed in the middle; many times, nothing is left */
    static void progress(String[] a) throws IOException {
        File file = new File(a[0]);
        java.util.List<Double> shares = new java.util.ArrayList<>();
        String text;
        try (SpikingBrain model = SpikingBrain.load(file, new ModelOptions(), shares::add); Session session = model.newSession(Setup.small())) {
            text = Setup.read(session.generate("the", Setup.GREEDY, null));
        }
        boolean rising = true;
        for (int i = 1; i < shares.size(); ++i) {
            rising &= shares.get(i) >= shares.get(i - 1);
        }
        Run.out("rising", rising && shares.get(0) < 0.2);
        Run.out("calls", shares.size());
        Run.out("last", shares.get(shares.size() - 1));
        Run.out("cancelled", Run.failure(() -> SpikingBrain.load(file, new ModelOptions(), share -> share < 0.5)));
        Run.out("at_the_end", Run.failure(() -> SpikingBrain.load(file, new ModelOptions(), share -> share < 1)));
        Run.out("thrown", Run.failure(() -> SpikingBrain.load(file, new ModelOptions().useMmap(false), share -> {
            throw Loading.<RuntimeException>hidden(new IOException("mine"));
        })));
        for (int i = 1; i <= 100; ++i) {
            double end = i % 10 / 10.0;
            Run.failure(() -> SpikingBrain.load(file, new ModelOptions().useMmap(end < 0.5), share -> share < end));
            if (i == 25) {
                System.gc();
                Run.out("early", Setup.rssAnonKb());
            }
        }
        System.gc();
        Run.out("late", Setup.rssAnonKb());
        Run.out("mapped", mapped());
        try (SpikingBrain model = SpikingBrain.load(file, new ModelOptions(), null); Session session = model.newSession(Setup.small())) {
            Run.out("text", text.equals(Setup.read(session.generate("the", Setup.GREEDY, null))));
        }
    }

    @SuppressWarnings("unchecked")
    private static <E extends Exception> E hidden(Exception e) throws E {
        throw (E) e;
    }

    /** model: what checkMemory compares with */
    static void memory(String[] a) {
        Run.out("refused", Run.failure(() -> Setup.load(a[0], new ModelOptions().availableMemory(1 << 20)).close()));
        Run.out("go", Run.failure(() -> Setup.load(a[0], new ModelOptions().availableMemory(1L << 30)).close()));
        Run.out("wrong", Run.failure(() -> new ModelOptions().availableMemory(-2)));
        Run.out("usable", new long[] { MemInfo.usable(500, 200, false), MemInfo.usable(100, 200, false), MemInfo.usable(500, 200, true) });
    }

    static void system(String[] a) {
        SystemInfo info = SpikingBrain.systemInfo();
        Run.out("line", info.llamaCpp);
        Run.out("kernels", info.spikeKernels);
        Run.out("features", info.features.size());
        Run.out("default_threads", info.defaultThreads);
    }

    static void folder(String[] a) {
        SpikingBrain.initialize(new File(a[0]));
        Run.out("cpus", SpikingBrain.systemInfo().cpus);
    }
}
