package org.spikingbrain;

import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.List;

/** Tokens, prompts, streams. */
final class Text {
    private Text() {}

    /** model, file of texts, one a line */
    static void tokenize(String[] a) throws IOException {
        try (SpikingBrain model = Setup.load(a[0])) {
            for (String line : Files.readAllLines(new File(a[1]).toPath())) {
                String text = line.replace("\\n", "\n").replace("\\u0000", "\0");
                int[] ids = model.tokenize(text, true, true);
                Run.out("ids", ids);
                Run.out("plain", model.tokenize(text, true, false));
                Run.out("back", Prints.text(model.detokenize(ids, true)));
            }
            Run.out("lone", model.tokenize("a\uD800b", false, false));
        }
    }

    /** model, prompt, temperature, top_k, top_p, min_p, repeat, seed, max_tokens, stops... */
    static void generate(String[] a) throws IOException {
        GenerateOptions o = new GenerateOptions().temperature(Double.parseDouble(a[2])).topK(Integer.parseInt(a[3])).topP(Double.parseDouble(a[4]))
            .minP(Double.parseDouble(a[5])).repeatPenalty(Double.parseDouble(a[6])).seed(Long.parseLong(a[7])).maxTokens(Integer.parseInt(a[8]));
        o.stop(java.util.Arrays.copyOfRange(a, 9, a.length));
        try (SpikingBrain model = Setup.load(a[0]); Session session = model.newSession(Setup.small());
             Generation answer = session.generate(Setup.text(a[1]), o, null)) {
            List<String> pieces = new ArrayList<>();
            while (answer.hasNext()) {
                pieces.add(answer.next());
            }
            Run.out("text", String.join("", pieces));
            Run.out("whole", answer.text());
            Run.out("pieces", pieces.size());
            Run.out("empty", pieces.contains(""));
            Run.out("tokens", answer.tokens());
            Run.out("reason", answer.finishReason());
            Timings t = answer.timings();
            Run.out("counts", new int[] { t.nPrompt, t.nPromptEvaluated, t.nGenerated });
            Run.out("times", t.promptMs > 0 && t.generateMs > 0 && t.tokensPerSecond() > 0 && t.promptTokensPerSecond() > 0);
        }
    }

    /** model, n_ctx (0: none given), numbers of prompt tokens... */
    static void limits(String[] a) throws IOException {
        try (SpikingBrain model = Setup.load(a[0]); Session session = model.newSession(Setup.small().nCtx(Integer.parseInt(a[1])))) {
            for (int i = 2; i < a.length; ++i) {
                Run.out("limit", session.defaultMaxTokens(Integer.parseInt(a[i])));
            }
            if (session.nCtx() < 1 << 30) {
                try (Generation answer = session.generate(new int[] { 1, 2, 3 }, new GenerateOptions().temperature(0), null)) {
                    while (answer.hasNext()) {
                        answer.next();
                    }
                    Run.out("ended", answer.tokens().length + " " + answer.finishReason());
                }
            }
        }
    }

    /** Bytes pushed one by one, or in pieces of a: what comes out. bytes as hex, stops... */
    static void stream(String[] a) {
        byte[] bytes = Prints.unhex(a[0]);
        for (int size : new int[] { 1, 2, 3, bytes.length }) {
            TextStream stream = new TextStream(java.util.Arrays.asList(a).subList(1, a.length));
            StringBuilder out = new StringBuilder();
            for (int i = 0; i < bytes.length && !stream.stopped(); i += size) {
                out.append(stream.push(java.util.Arrays.copyOfRange(bytes, i, Math.min(bytes.length, i + size))));
            }
            Run.out("text", out + (stream.stopped() ? "" : stream.finish()));
        }
    }

    static void template(String[] a) throws IOException {
        try (SpikingBrain model = Setup.load(a[0])) {
            Run.out("prompt", model.applyChatTemplate(Setup.chat("system", "Sé bréve.", "user", "hello \uD83D\uDE00"), true));
            Run.out("without", model.applyChatTemplate(Setup.chat("user", "hello"), false));
            Run.out("none", Run.failure(() -> model.applyChatTemplate(new ArrayList<>(), true)));
        }
    }

    /** A chat of three turns, the second cancelled half way: tokens evaluated per turn, and of the prompt in all. */
    static void chat(String[] a) throws IOException {
        try (SpikingBrain model = Setup.load(a[0]); Session session = model.newSession(Setup.small())) {
            Generation first = session.chat(Setup.chat("user", "say hello"), Setup.GREEDY, null);
            String one = Setup.read(first);
            Generation second = session.chat(Setup.chat("user", "say hello", "assistant", one, "user", "again"), Setup.GREEDY, null);
            for (int i = 0; i < 5 && second.hasNext(); ++i) {
                second.next();
            }
            second.close();
            String two = second.text();
            Generation third = session.chat(Setup.chat("user", "say hello", "assistant", one, "user", "again", "assistant", two, "user", "more"), Setup.GREEDY, null);
            third.hasNext();
            Run.out("one", one);
            Run.out("two", two);
            Run.out("third", third.text() + Setup.read(third));
            for (Generation g : new Generation[] { first, second, third }) {
                Run.out("counts", new int[] { g.timings().nPrompt, g.timings().nPromptEvaluated, g.timings().nGenerated });
            }
            Run.out("ids", session.tokens());
        }
    }

    /** Two sessions in two threads, each against itself alone. */
    static void two(String[] a) throws Exception {
        String[] prompts = { "the cat", "once upon a time there was" };
        try (SpikingBrain model = Setup.load(a[0])) {
            String[] solo = new String[2];
            for (int i = 0; i < 2; ++i) {
                try (Session s = model.newSession(Setup.small())) {
                    solo[i] = Setup.read(s.generate(prompts[i], new GenerateOptions().temperature(0.9).seed(7).maxTokens(60), null));
                }
            }
            String[] both = new String[2];
            Thread[] threads = new Thread[2];
            for (int i = 0; i < 2; ++i) {
                int k = i;
                Session s = model.newSession(Setup.small());
                threads[i] = new Thread(() -> both[k] = Setup.read(s.generate(prompts[k], new GenerateOptions().temperature(0.9).seed(7).maxTokens(60), null)));
            }
            for (Thread t : threads) {
                t.start();
            }
            for (Thread t : threads) {
                t.join();
            }
            Run.out("equal", solo[0].equals(both[0]) && solo[1].equals(both[1]));
            Run.out("different", !solo[0].equals(solo[1]));
        }
    }

    /** Two threads on one session: their calls come one after the other. */
    static void shared(String[] a) throws Exception {
        try (SpikingBrain model = Setup.load(a[0]); Session session = model.newSession(Setup.small())) {
            Generation stream = session.generate("the", Setup.GREEDY, null);
            stream.next();
            Thread[] threads = new Thread[4];
            for (int i = 0; i < threads.length; ++i) {
                threads[i] = new Thread(() -> session.eval(new int[40], null));
                threads[i].start();
            }
            for (Thread t : threads) {
                t.join();
            }
            Run.out("grown", session.nTokens());
            Run.out("stream", Run.failure(() -> Setup.read(stream)));
        }
    }
}
