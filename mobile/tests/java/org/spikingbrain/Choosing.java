package org.spikingbrain;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** What answers are chosen by: penalties, biases, grammars, tools; what is told of them: log probabilities; many of them together. */
final class Choosing {
    static final Tool WEATHER = new Tool("weather", "the weather",
        "{\"type\": \"object\", \"properties\": {\"city\": {\"enum\": [\"Oslo\", \"Rome\"]}}, \"required\": [\"city\"], \"additionalProperties\": false}");
    static final Tool ADD = new Tool("add", "the add",
        "{\"type\": \"object\", \"properties\": {\"round\": {\"type\": \"boolean\"}}, \"required\": [\"round\"], \"additionalProperties\": false}");

    private Choosing() {}

    /** name=value each; bias=509:50,511:50; grammar=FILE, schema=FILE; tools: none, or weather and add; choice: auto, none, required or a name */
    static GenerateOptions options(String[] a, int from) throws IOException {
        GenerateOptions o = new GenerateOptions();
        for (String word : Arrays.copyOfRange(a, from, a.length)) {
            String name = word.substring(0, word.indexOf('='));
            String value = word.substring(name.length() + 1);
            switch (name) {
                case "max_tokens": o.maxTokens(Integer.parseInt(value)); break;
                case "temperature": o.temperature(Double.parseDouble(value)); break;
                case "top_k": o.topK(Integer.parseInt(value)); break;
                case "typical_p": o.typicalP(Double.parseDouble(value)); break;
                case "repeat_penalty": o.repeatPenalty(Double.parseDouble(value)); break;
                case "frequency_penalty": o.frequencyPenalty(Double.parseDouble(value)); break;
                case "presence_penalty": o.presencePenalty(Double.parseDouble(value)); break;
                case "seed": o.seed(Long.parseLong(value)); break;
                case "logprobs": o.logprobs(Integer.parseInt(value)); break;
                case "grammar": o.grammar(Grammar.gbnf(Setup.text(value))); break;
                case "schema": o.grammar(Grammar.jsonSchema(Setup.text(value))); break;
                case "tools": o.tools(value.equals("one") ? Arrays.asList(ADD) : Arrays.asList(WEATHER, ADD)); break;
                case "choice": o.toolChoice(choice(value)); break;
                case "bias": o.logitBias(bias(value)); break;
                default: throw new IllegalArgumentException(word);
            }
        }
        return o;
    }

    private static ToolChoice choice(String value) {
        return value.equals("auto") ? ToolChoice.AUTO : value.equals("none") ? ToolChoice.NONE : value.equals("required") ? ToolChoice.REQUIRED : ToolChoice.named(value);
    }

    private static Map<Integer, Double> bias(String value) {
        Map<Integer, Double> out = new HashMap<>();
        for (String one : value.split(",")) {
            out.put(Integer.parseInt(one.split(":")[0]), Double.parseDouble(one.split(":")[1]));
        }
        return out;
    }

    /** model, prompt, options... */
    static void generate(String[] a) throws IOException {
        try (SpikingBrain model = Setup.load(a[0]); Session session = model.newSession(Setup.small());
             Generation answer = session.generate(Setup.text(a[1]), options(a, 2), null)) {
            Setup.read(answer);
            say(answer);
        }
    }

    private static void say(Generation answer) {
        Run.out("text", answer.text());
        Run.out("tokens", answer.tokens());
        Run.out("reason", answer.finishReason());
        for (TokenLogprobs t : answer.logprobs()) {
            Run.out("token", t.token + " " + Prints.hex(t.bytes()) + " " + t.text);
            Run.out("logprob", t.logprob);
            for (TokenLogprobs.Candidate c : t.top) {
                Run.out("top", c.token + " " + c.logprob);
            }
        }
    }

    /** model, options...: a chat of one message, then one with its calls and their results */
    static void chat(String[] a) throws IOException {
        GenerateOptions o = options(a, 1);
        try (SpikingBrain model = Setup.load(a[0]); Session session = model.newSession(Setup.small().nCtx(4000))) {
            Conversation chat = new Conversation();
            chat.ask("hello");
            Generation answer = chat.answer(session, o, null);
            String pieces = Setup.read(answer);
            say(answer);
            ChatMessage message = answer.message();
            Run.out("joined", pieces.equals(answer.text()) && pieces.equals(message.content));
            for (ToolCall call : message.toolCalls) {
                Run.out("call", call.name + " " + call.arguments);
                chat.add(ChatMessage.tool(call.id, "7"));
            }
            if (!message.toolCalls.isEmpty()) {
                Generation next = chat.answer(session, o.toolChoice(ToolChoice.NONE).maxTokens(1), null);
                next.hasNext();
                next.close();
                Run.out("prompt", Prints.text(model.detokenize(session.tokens(), true)));
                Run.out("new", next.timings().nPromptEvaluated);
            }
        }
    }

    /** model: an answer that ends inside of its call, and the next one */
    static void cutCall(String[] a) throws IOException {
        GenerateOptions o = new GenerateOptions().tools(Arrays.asList(ADD)).toolChoice(ToolChoice.REQUIRED).logitBias(bias("509:50,511:50")).seed(1);
        try (SpikingBrain model = Setup.load(a[0]); Session session = model.newSession(Setup.small())) {
            Conversation chat = new Conversation();
            chat.ask("hello");
            Generation answer = chat.answer(session, o.maxTokens(60), null);
            Setup.read(answer);
            Run.out("reason", answer.finishReason());
            Run.out("calls", answer.message().toolCalls.size());
            Run.out("draft", chat.takeDraft());
            chat.ask("hello");
            Run.out("messages", chat.messages().get(chat.messages().size() - 1).role);
            Run.out("next", chat.answer(session, o.toolChoice(ToolChoice.NONE).maxTokens(2), null).hasNext() || true);
        }
    }

    /** model, prompts in a file, a line each; answers of each; together; options... */
    static void parallel(String[] a) throws IOException {
        List<String> prompts = Arrays.asList(Setup.text(a[1]).split("\n"));
        try (SpikingBrain model = Setup.load(a[0]); Parallel many = model.newParallel(Setup.small(), Integer.parseInt(a[3]))) {
            StringBuilder[] heard = new StringBuilder[prompts.size() * Integer.parseInt(a[2])];
            int[] ended = { 0 };
            Arrays.setAll(heard, i -> new StringBuilder());
            Parallel.Listener listener = new Parallel.Listener() {
                @Override
                public void onText(int answer, String piece) {
                    heard[answer].append(piece);
                }

                @Override
                public void onEnd(Parallel.Answer answer) {
                    ++ended[0];
                }
            };
            boolean joined = true;
            List<Parallel.Answer> answers = many.generate(prompts, options(a, 4), Integer.parseInt(a[2]), listener);
            for (int i = 0; i < heard.length; ++i) {
                Parallel.Answer answer = answers.get(i);
                joined &= heard[i].toString().equals(answer.text) && answer.message.content.equals(answer.text);
                Run.out("answer", answer.index + " " + answer.finishReason + " " + answer.text);
                Run.out("tokens", answer.tokens());
            }
            Run.out("joined", joined && ended[0] == heard.length);
            Run.out("again", many.generate(prompts, options(a, 4), Integer.parseInt(a[2]), null).get(0).text.equals(answers.get(0).text));
            Run.out("none", many.generate(Collections.emptyList(), options(a, 4), 1, null).size());
        }
    }

    /** model: chats together, stopped, refused, closed twice */
    static void parallelChats(String[] a) throws Exception {
        GenerateOptions o = new GenerateOptions().temperature(0).maxTokens(12);
        SpikingBrain model = Setup.load(a[0]);
        Parallel many = model.newParallel(Setup.small(), 2);
        List<List<ChatMessage>> chats = new ArrayList<>();
        for (String text : new String[] { "say hello", "the cat", "say hello" }) {
            chats.add(Setup.chat("user", text));
        }
        for (Parallel.Answer answer : many.chat(chats, o, null)) {
            Run.out("answer", answer.message.content);
        }
        Parallel.Listener stopping = new Parallel.Listener() {
            @Override
            public void onText(int answer, String piece) {
                many.cancel();
            }

            @Override
            public void onEnd(Parallel.Answer answer) {}
        };
        Run.out("cancelled", Run.failure(() -> many.chat(chats, o, stopping)));
        Run.out("after", many.chat(chats.subList(0, 1), o, null).get(0).text);
        Run.out("e", Run.failure(() -> many.generate(Arrays.asList("a", ""), o, 1, null)));
        Run.out("e", Run.failure(() -> many.generate(Arrays.asList("a"), o, 0, null)));
        Run.out("e", Run.failure(() -> many.generate(Arrays.asList("a"), new GenerateOptions().logprobs(1), 1, null)));
        Run.out("e", Run.failure(() -> many.generate(Arrays.asList("a"), new GenerateOptions().tools(Arrays.asList(ADD)), 1, null)));
        Run.out("e", Run.failure(() -> model.newParallel(Setup.small(), 255)));
        Run.out("e", Run.failure(() -> model.newParallel(Setup.small(), 0)));
        many.close();
        many.close();
        Run.out("closed", Run.failure(() -> many.chat(chats, o, null)));
        Parallel left = model.newParallel(Setup.small(), 1);
        model.close();
        left.close();
        Run.out("closed", Run.failure(() -> left.chat(chats, o, null)));
    }

    /** model without tools in its template: what is refused by name */
    static void refusals(String[] a) throws IOException {
        try (SpikingBrain model = Setup.load(a[0]); Session session = model.newSession(Setup.small())) {
            List<ChatMessage> hello = Setup.chat("user", "hello");
            GenerateOptions two = new GenerateOptions().tools(Arrays.asList(WEATHER, ADD));
            Run.out("e", Run.failure(() -> session.chat(hello, two, null)));
            Run.out("e", Run.failure(() -> session.chat(hello, new GenerateOptions().toolChoice(ToolChoice.REQUIRED), null)));
            Run.out("e", Run.failure(() -> session.chat(hello, new GenerateOptions().tools(Arrays.asList(ADD)).toolChoice(ToolChoice.named("sub")), null)));
            Run.out("e", Run.failure(() -> session.chat(hello, new GenerateOptions().tools(Arrays.asList(ADD)).grammar(Grammar.gbnf("root ::= \"a\"")), null)));
            Run.out("e", Run.failure(() -> session.generate("hello", two, null)));
            Run.out("e", Run.failure(() -> new GenerateOptions().tools(Arrays.asList(ADD, ADD))));
            Run.out("e", Run.failure(() -> new Tool("", null, null)));
            Run.out("e", Run.failure(() -> new Tool("t", null, "{")));
            Run.out("e", Run.failure(() -> new Tool("t", null, "[1]")));
            Run.out("e", Run.failure(() -> new Tool("t", null, "{}, \"x\": {}")));
            Run.out("e", Run.failure(() -> Grammar.gbnf("root ::= nothing")));
            Run.out("e", Run.failure(() -> Grammar.gbnf("root := \"a\"")));
            Run.out("e", Run.failure(() -> Grammar.gbnf("root ::= \"a\"", "other")));
            Run.out("e", Run.failure(() -> Grammar.jsonSchema("{\"type\": 3}")));
            Run.out("e", Run.failure(() -> Grammar.jsonSchema("{\"type\": \"array\", \"uniqueItems\": true}")));
            Run.out("e", Run.failure(() -> Grammar.jsonSchema("{")));
            Run.out("e", Run.failure(() -> new GenerateOptions().typicalP(1.5)));
            Run.out("e", Run.failure(() -> new GenerateOptions().presencePenalty(Double.NaN)));
            Run.out("e", Run.failure(() -> new GenerateOptions().frequencyPenalty(1e300)));
            Run.out("e", Run.failure(() -> new GenerateOptions().logprobs(21)));
            Run.out("e", Run.failure(() -> new GenerateOptions().logprobs(-2)));
            Run.out("e", Run.failure(() -> new GenerateOptions().logitBias(Collections.singletonMap(1, Double.NaN))));
            Run.out("e", Run.failure(() -> Setup.read(session.generate("hello", new GenerateOptions().logitBias(Collections.singletonMap(1 << 20, 1.0)), null))));
            Run.out("e", Run.failure(() -> new SessionOptions().cpus(-1)));
            Run.out("left_out", Grammar.jsonSchema("{\"type\": \"array\", \"uniqueItems\": true}", true).leftOut().size());
            Run.out("matches", Grammar.gbnf("root ::= \"ja\" | \"nein\"").matches("nein") && !Grammar.gbnf("root ::= \"ja\" | \"nein\"").matches("ne"));
        }
    }
}
