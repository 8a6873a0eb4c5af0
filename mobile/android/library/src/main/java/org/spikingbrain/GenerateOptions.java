package org.spikingbrain;

import java.security.SecureRandom;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;

import org.jspecify.annotations.Nullable;

/**
 * How tokens are chosen (llama.cpp's sampler chain), what constrains them, and when that ends. Setters return this object and throw
 * IllegalArgumentException. A call reads them when it is made: what is set afterwards is for the next.
 */
public final class GenerateOptions {
    private static final long RANDOM = 0xFFFFFFFFL; // llama.cpp's word for no seed
    private static final SecureRandom SEEDS = new SecureRandom();

    int maxTokens;
    double temperature = 0.8;
    int topK = 40;
    double topP = 0.95;
    double minP = 0.05;
    double typicalP = 1.0;
    double repeatPenalty = 1.0;
    double frequencyPenalty;
    double presencePenalty;
    Map<Integer, Double> logitBias = Collections.emptyMap();
    long seed = -1;
    List<String> stop = new ArrayList<>();
    int logprobs = -1;
    Grammar grammar;
    List<Tool> tools = Collections.emptyList();
    ToolChoice toolChoice = ToolChoice.AUTO;

    /** Most tokens of the answer; 0 (the default): {@link Session#defaultMaxTokens} of the prompt. */
    public GenerateOptions maxTokens(int n) {
        maxTokens = Check.range("generate: max_tokens", n, 0, Integer.MAX_VALUE);
        return this;
    }

    /** 0: always the likeliest token; 0.8. Less than 0: the model's distribution untouched. */
    public GenerateOptions temperature(double t) {
        temperature = Check.range("generate: temperature", t, -Float.MAX_VALUE, Float.MAX_VALUE);
        return this;
    }

    /** The k likeliest tokens only; 40, 0 is all. */
    public GenerateOptions topK(int k) {
        topK = k;
        return this;
    }

    /** The likeliest tokens that together have this probability; 0.95. */
    public GenerateOptions topP(double p) {
        topP = Check.range("generate: top_p", p, 0, 1);
        return this;
    }

    /** Tokens of at least this share of the likeliest one's probability; 0.05. */
    public GenerateOptions minP(double p) {
        minP = Check.range("generate: min_p", p, 0, 1);
        return this;
    }

    /** Tokens whose information is nearest to what is expected, together of this probability; 1 is all. */
    public GenerateOptions typicalP(double p) {
        typicalP = Check.range("generate: typical_p", p, 0, 1);
        return this;
    }

    /** Taken off the logit of each token read lately, as often as it was; 0. Negative: they become likelier. */
    public GenerateOptions frequencyPenalty(double p) {
        frequencyPenalty = Check.finite("generate: frequency_penalty", p);
        return this;
    }

    /** Taken off the logit of each token read lately, once; 0. Negative: they become likelier. */
    public GenerateOptions presencePenalty(double p) {
        presencePenalty = Check.finite("generate: presence_penalty", p);
        return this;
    }

    /** Added to the logits of tokens; minus infinity: never. */
    public GenerateOptions logitBias(Map<Integer, Double> bias) {
        Map<Integer, Double> read = new TreeMap<>();
        for (Map.Entry<Integer, Double> e : Check.given("generate: logit_bias", bias).entrySet()) {
            int token = Check.given("generate: logit_bias: token", e.getKey());
            double value = Check.given("generate: logit_bias: " + token, e.getValue());
            Check.that(!Double.isNaN(value) && value <= Float.MAX_VALUE, "generate: logit_bias: got " + token + ": " + value
                + ", expected a token id and a number or minus infinity");
            read.put(token, value);
        }
        logitBias = read;
        return this;
    }

    /** Above 1: tokens read lately become less likely; 1. */
    public GenerateOptions repeatPenalty(double p) {
        Check.that((float) p > 0 && (float) p <= Float.MAX_VALUE, "generate: repeat_penalty: got " + p + ", expected a number above 0; 1 is none");
        repeatPenalty = p;
        return this;
    }

    /** Equal seeds, equal draws; -1 (the default): a new one each time. */
    public GenerateOptions seed(long s) {
        Check.that(s >= -1 && s < 1L << 32, "generate: seed: got " + s + ", expected -1 to 2^32 - 1; -1 is random");
        seed = s;
        return this;
    }

    /** Texts before which the answer ends. */
    public GenerateOptions stop(String... texts) {
        for (String s : Check.given("generate: stop", texts)) {
            Check.that(s != null && !s.isEmpty(), "generate: stop: got " + Arrays.toString(texts) + ", expected texts that are not empty");
        }
        stop = new ArrayList<>(Arrays.asList(texts));
        return this;
    }

    /** Log probabilities of the answer's tokens, and of so many of the likeliest at each place, 0 to 20; -1 (the default): none. */
    public GenerateOptions logprobs(int top) {
        logprobs = Check.range("generate: logprobs", top, -1, 20);
        return this;
    }

    /** What the answer must match; null (the default): nothing. In a chat not beside tools. */
    public GenerateOptions grammar(@Nullable Grammar g) {
        grammar = g;
        return this;
    }

    /** Functions that a chat's answer may call; none (the default). */
    public GenerateOptions tools(List<Tool> list) {
        List<Tool> read = Check.list("generate: tools", list);
        Set<String> names = new HashSet<>();
        for (Tool tool : read) {
            Check.that(names.add(tool.name), "generate: tools: got '" + tool.name + "' twice, expected different names");
        }
        tools = read;
        return this;
    }

    /** Whether they are called; {@link ToolChoice#AUTO}. */
    public GenerateOptions toolChoice(ToolChoice choice) {
        toolChoice = Check.given("generate: tool_choice", choice);
        return this;
    }

    // --- for the calls that take them ----------------------------------------------------------------------------

    /** A copy that means something to a model. IllegalArgumentException: a token that is not in its vocabulary. */
    GenerateOptions of(String where, SpikingBrain model) {
        model.checked(where + ": logit_bias", logitBias.keySet().stream().mapToInt(token -> token).toArray());
        return copy();
    }

    private GenerateOptions copy() {
        GenerateOptions o = new GenerateOptions();
        o.maxTokens = maxTokens;
        o.temperature = temperature;
        o.topK = topK;
        o.topP = topP;
        o.minP = minP;
        o.typicalP = typicalP;
        o.repeatPenalty = repeatPenalty;
        o.frequencyPenalty = frequencyPenalty;
        o.presencePenalty = presencePenalty;
        o.logitBias = logitBias;
        o.seed = seed;
        o.stop = stop;
        o.logprobs = logprobs;
        o.grammar = grammar;
        o.tools = tools;
        o.toolChoice = toolChoice;
        return o;
    }

    /** Of a prompt that is no chat. */
    void refuseTools(String where) {
        Check.that(tools.isEmpty() && toolChoice == ToolChoice.AUTO, where + ": tools: got some, expected none with a prompt; call chat()");
    }

    /** The given seed, or a new one. */
    long drawSeed() {
        return seed >= 0 && seed < RANDOM ? seed : SEEDS.nextInt(Integer.MAX_VALUE);
    }

    /** A sequence's chain of samplers. constraint: null: none. */
    void newChain(long session, int seq, long itsSeed, int lastN, Constraint constraint) {
        int[] numbers = { (int) (itsSeed % RANDOM), topK, lastN };
        float[] shares = { (float) topP, (float) minP, (float) typicalP, (float) temperature, (float) repeatPenalty, (float) frequencyPenalty,
            (float) presencePenalty };
        int[] tokens = new int[logitBias.size()];
        float[] biases = new float[logitBias.size()];
        int i = 0;
        for (Map.Entry<Integer, Double> e : logitBias.entrySet()) {
            tokens[i] = e.getKey();
            biases[i++] = e.getValue().floatValue();
        }
        boolean lazy = constraint != null && constraint.lazy;
        Native.newChain(session, seq, numbers, shares, tokens, biases, constraint == null ? null : constraint.grammar,
            constraint == null ? null : constraint.lists, lazy);
    }
}
