package org.spikingbrain.app.core;

import org.json.JSONException;
import org.json.JSONObject;
import org.spikingbrain.CancelledException;
import org.spikingbrain.Session;
import org.spikingbrain.SpikingBrain;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.function.BooleanSupplier;
import java.util.function.Consumer;

/** llama-bench's pp (a prompt) and tg (single tokens), each in an empty context and after one run to warm up. */
public final class Benchmark {
    private final int nPrompt;
    private final int nGen;
    private final int repetitions;
    private final BenchRows rows;
    private final Consumer<String> progress;

    /** progress: told before every repetition, by the inference thread. IllegalArgumentException: a count below 1. */
    public Benchmark(int nPrompt, int nGen, int repetitions, BenchRows rows, Consumer<String> progress) {
        if (nPrompt < 1 || nGen < 1 || repetitions < 1) {
            throw new IllegalArgumentException("benchmark: got " + nPrompt + " prompt tokens, " + nGen + " tokens, " + repetitions + " repetitions, expected at least 1 of each");
        }
        this.nPrompt = nPrompt;
        this.nGen = nGen;
        this.repetitions = repetitions;
        this.rows = rows;
        this.progress = progress;
    }

    /** Two rows. CancelledException: stopped. */
    List<JSONObject> run(ModelSource source, SpikingBrain model, Session session, Settings settings, BooleanSupplier stopped) throws IOException, JSONException {
        int[] tokens = new Random(1).ints(Math.max(nPrompt, nGen), 0, model.nVocab()).toArray();
        double[] prompt = repeat("pp" + nPrompt, stopped, session, () -> session.eval(Arrays.copyOf(tokens, nPrompt), null));
        double[] single = repeat("tg" + nGen, stopped, session, () -> {
            for (int i = 0; i < nGen; ++i) {
                check(stopped);
                session.eval(new int[] { tokens[i] }, null);
            }
        });
        progress.accept("sha256");
        List<JSONObject> out = new ArrayList<>();
        JSONObject about = rows.about(source, model, session, settings, stopped);
        out.add(rows.prompt(about, nPrompt, prompt));
        out.add(rows.single(about, nGen, single));
        return out;
    }

    /** Seconds of each repetition. */
    private double[] repeat(String name, BooleanSupplier stopped, Session session, Runnable work) {
        double[] out = new double[repetitions];
        for (int i = -1; i < repetitions; ++i) { // -1: to warm up
            check(stopped);
            progress.accept(name + ": " + (i + 1) + " of " + repetitions);
            session.reset();
            long start = System.nanoTime();
            work.run();
            if (i >= 0) {
                out[i] = (System.nanoTime() - start) / 1e9;
            }
        }
        return out;
    }

    static void check(BooleanSupplier stopped) {
        if (stopped.getAsBoolean()) {
            throw new CancelledException("benchmark: got a stop, expected none");
        }
    }

    /** "pp512: 123.45 ± 2% tokens/s" for each row. */
    public static String summary(List<JSONObject> rows) throws JSONException {
        StringBuilder out = new StringBuilder();
        for (JSONObject row : rows) {
            boolean prompt = !row.isNull("n_prompt");
            double median = row.getDouble("median");
            out.append(row.getString("case")).append(": ")
                .append(Format.rate(prompt ? row.getInt("n_prompt") / median : median, row.getDouble("spread"))).append('\n');
        }
        return out.toString();
    }
}
