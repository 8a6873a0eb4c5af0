package org.spikingbrain;

import java.io.File;
import java.io.IOException;
import java.util.Arrays;

/** What must hold of examples/tiny wherever it runs: on a device by TinyModelTest, on a desktop JVM by mobile/tests. No Android in it. */
final class TinyModel {
    static final String PROMPT = "hello";
    static final int[] ANSWER = { 395, 395, 200, 200, 200, 334, 313, 313 }; // greedy, F32: what the Python package answers

    private TinyModel() {}

    /** All of it. AssertionError: what was got, and what was expected. */
    static void check(File file, File folder) throws IOException {
        GenerateOptions greedy = new GenerateOptions().temperature(0).maxTokens(ANSWER.length);
        File snapshot = new File(folder, "tiny.snapshot");
        try (SpikingBrain model = SpikingBrain.load(file, new ModelOptions())) {
            int[] prompt = model.tokenize(PROMPT, true, true);
            try (Session session = model.newSession(new SessionOptions().nThreads(1))) {
                session.eval(Arrays.copyOf(prompt, prompt.length - 1), null);
                session.snapshot(snapshot);
                same("answer", answer(session, prompt, greedy), ANSWER);
            }
            try (Session again = model.newSession(new SessionOptions())) { // as many threads as there are big cores
                again.restore(snapshot);
                same("answer after a snapshot", answer(again, prompt, greedy), ANSWER);
                same("tokens evaluated after a snapshot", new int[] { (int) again.nEvaluated() }, new int[] { ANSWER.length });
            }
        } finally {
            snapshot.delete();
        }
    }

    private static int[] answer(Session session, int[] prompt, GenerateOptions options) {
        try (Generation answer = session.generate(prompt, options, null)) {
            while (answer.hasNext()) {
                answer.next();
            }
            return answer.tokens();
        }
    }

    private static void same(String what, int[] got, int[] expected) {
        if (!Arrays.equals(got, expected)) {
            throw new AssertionError(what + ": got " + Arrays.toString(got) + ", expected " + Arrays.toString(expected));
        }
    }
}
