package org.spikingbrain.app.core;

import org.json.JSONArray;
import org.json.JSONObject;
import org.spikingbrain.ChatMessage;
import org.spikingbrain.Conversation;
import org.spikingbrain.Generation;
import org.spikingbrain.LoadProgress;
import org.spikingbrain.MemoryEstimate;
import org.spikingbrain.ModelOptions;
import org.spikingbrain.Session;
import org.spikingbrain.SessionOptions;
import org.spikingbrain.SpikingBrain;

import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.lang.ref.WeakReference;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** The engine on real models. */
final class Engines {
    private static final Settings GREEDY = new Settings("1", Settings.Spikes.AS_FILE, "", "0", "32", "24", false);
    private static final Settings COUNTING = new Settings("1", Settings.Spikes.AS_FILE, "", "0", "32", "24", true);

    private Engines() {}

    /** A file in the place of a document. */
    private static final class FileSource implements ModelSource {
        private final File file;
        private final long available;
        Runnable onShare = () -> {};

        FileSource(String file, long available) {
            this.file = new File(file);
            this.available = available;
        }

        @Override
        public ModelEntry entry() {
            return new ModelEntry(file.getPath(), file.getName(), file.length());
        }

        @Override
        public MemoryEstimate estimate(ModelOptions model, SessionOptions session) throws IOException {
            return SpikingBrain.estimate(file, model, session);
        }

        @Override
        public SpikingBrain load(ModelOptions options, LoadProgress progress) throws IOException {
            return SpikingBrain.load(file, options, share -> {
                onShare.run();
                return progress.onProgress(share);
            });
        }

        @Override
        public InputStream read() throws IOException {
            return new FileInputStream(file);
        }

        @Override
        public long availableMemory() {
            return available;
        }
    }

    /** Notes what the engine tells, and waits for it. */
    private static final class Watcher implements EngineListener {
        final BlockingQueue<Engine.State> states = new LinkedBlockingQueue<>();
        final List<Engine.State> seen = new ArrayList<>();
        final List<String> messages = new ArrayList<>();
        volatile Runnable onChange = () -> {};

        @Override
        public void onState(Engine.State state) {
            states.add(state);
        }

        @Override
        public void onChange() {
            onChange.run();
        }

        @Override
        public synchronized void onMessage(String text) {
            messages.add(text);
        }

        @Override
        public void onRefused(ModelSource source, String sentence) {
            onMessage("refused: " + sentence);
        }

        /** Until it is in this state. */
        void await(Engine.State wanted) throws InterruptedException {
            Engine.State state;
            do {
                state = states.poll(120, TimeUnit.SECONDS);
                if (state == null) {
                    throw new AssertionError("got none of " + wanted + "; seen " + seen + " " + messages);
                }
                seen.add(state);
            } while (state != wanted);
        }

        synchronized String takeMessages() {
            String out = String.join("\n", messages);
            messages.clear();
            return out;
        }
    }

    private static FileSource source(String file) {
        return new FileSource(file, 8L << 30);
    }

    private static Engine loaded(String folder, String file, Settings settings, Watcher watcher) throws InterruptedException {
        Engine engine = new Engine(new Store(new File(folder)), watcher);
        engine.load(source(file), settings, false);
        watcher.await(Engine.State.READY);
        return engine;
    }

    private static void say(String name, Engine engine) {
        JSONArray list = new JSONArray();
        for (ChatMessage m : engine.chat().messages()) {
            list.put(m.content);
        }
        Case.out(name, list);
    }

    /** folder, model: two turns, the second stopped half way, a third that is stopped in its prompt */
    static void chat(String[] a) throws Exception {
        Watcher w = new Watcher();
        try (Engine engine = loaded(a[0], a[1], GREEDY, w)) {
            Case.out("loaded", engine.status().line);
            engine.send("say hello");
            w.await(Engine.State.READY);
            say("first", engine);
            Case.out("line", engine.status().line);
            int[] changes = { 0 };
            w.onChange = () -> {
                if (engine.chat().messages().get(3).content.length() > 0 && ++changes[0] == 4) {
                    engine.stop();
                }
            };
            engine.send("again");
            w.await(Engine.State.READY);
            w.onChange = () -> {};
            say("second", engine);
            Case.out("stopped", engine.status().line);
            w.onChange = () -> {
                if (engine.status().line.startsWith("prompt: ")) {
                    engine.stop();
                }
            };
            StringBuilder longText = new StringBuilder();
            for (int i = 0; i < 2000; ++i) {
                longText.append("the cat ");
            }
            engine.send(longText.toString());
            w.await(Engine.State.READY);
            w.onChange = () -> {};
            say("third", engine);
            Case.out("prefill", engine.status().line);
            Case.out("draft", engine.chat().takeDraft().equals(longText.toString()));
            engine.send("more");
            engine.stop(); // before it began
            w.await(Engine.State.READY);
            Case.out("early", engine.chat().takeDraft());
            engine.send("more");
            w.await(Engine.State.READY);
            say("fourth", engine);
            Case.out("after", engine.status().line);
            Case.out("memory", engine.status().memory(1024, 5L << 20));
            engine.newChat();
            engine.send("say hello");
            w.await(Engine.State.READY);
            say("new", engine);
            Case.out("messages", w.takeMessages());
        }
        w.await(Engine.State.EMPTY);
        Case.out("closed", w.seen.get(w.seen.size() - 1));
    }

    /** folder, model: is saved in the middle of the second answer, and killed */
    static void die(String[] a) throws Exception {
        Watcher w = new Watcher();
        Engine engine = loaded(a[0], a[1], GREEDY, w);
        engine.send("say hello");
        w.await(Engine.State.READY);
        File snapshot = new File(a[0], "chat.snapshot");
        int[] pieces = { 0 };
        w.onChange = () -> {
            if (engine.chat().messages().size() == 4 && engine.chat().messages().get(3).content.length() > 0 && ++pieces[0] == 5) {
                engine.save(); // by another thread in life: a flag that the loop looks at
            }
            if (snapshot.exists()) {
                say("before", engine);
                Runtime.getRuntime().halt(9);
            }
        };
        engine.send("tell me more of it");
        w.await(Engine.State.READY);
        System.exit(1); // was not saved in the middle
    }

    /** folder, model: a new process goes on */
    static void revive(String[] a) throws Exception {
        Watcher w = new Watcher();
        try (Engine engine = loaded(a[0], a[1], GREEDY, w)) {
            say("restored", engine);
            engine.send("and then");
            w.await(Engine.State.READY);
            Case.out("line", engine.status().line);
            say("all", engine);
            Case.out("messages", w.takeMessages());
        }
    }

    private static String flat(Conversation chat) {
        StringBuilder out = new StringBuilder();
        for (ChatMessage m : chat.messages()) {
            out.append(m.role.charAt(0)).append(':').append(m.content).append(' ');
        }
        return out.toString();
    }

    /** folder, model: questions that are answered, stopped early, taken back, and what another process reads of them */
    static void conversation(String[] a) throws Exception {
        Store store = new Store(new File(a[0]));
        try (SpikingBrain model = SpikingBrain.load(new File(a[1]), new ModelOptions()); Session session = model.newSession(GREEDY.sessionOptions(false))) {
            Conversation chat = new Conversation();
            Case.out("nothing", Case.failure(() -> chat.answer(session, GREEDY.generateOptions(), null)));
            chat.ask("one");
            Generation answer = chat.answer(session, GREEDY.generateOptions(), null);
            String began = answer.next();
            Case.out("during", flat(chat).equals("u:one a:" + began + " "));
            Case.out("twice", Case.failure(() -> chat.ask("two")));
            store.write(chat);
            Conversation killed = store.readChat();
            Case.out("killed", flat(killed).equals(flat(chat)) && killed.takeDraft().isEmpty() && killed.tokens().length == chat.tokens().length);
            while (answer.hasNext()) {
                answer.next();
            }
            String whole = "u:one a:" + answer.text() + " ";
            Case.out("whole", flat(chat).equals(whole));
            chat.ask("two");
            store.write(chat);
            Conversation early = store.readChat();
            Case.out("early", flat(early).replace(whole, "") + "draft:" + early.takeDraft() + "," + early.takeDraft());
            chat.answer(session, GREEDY.generateOptions(), null).close();
            Case.out("empty", flat(chat).replace(whole, "") + "draft:" + chat.takeDraft());
            chat.ask("three");
            Case.out("prompt", chat.messages().size());
            chat.takeBack();
            store.write(chat);
            Conversation saved = store.readChat();
            Case.out("tokens", Arrays.equals(saved.tokens(), chat.tokens()) && saved.tokens().length > answer.tokens().length);
            Case.out("saved", flat(saved).replace(whole, "") + "draft:" + saved.takeDraft());
            Conversation told = new Conversation();
            told.add(ChatMessage.system("be brief"));
            Case.out("untold", Case.failure(() -> told.answer(session, GREEDY.generateOptions(), null)));
            told.ask("five");
            told.answer(session, GREEDY.generateOptions(), null).close();
            Case.out("told", flat(told) + "draft:" + told.draft());
            saved.ask("four");
            try (Generation next = saved.answer(session, GREEDY.generateOptions(), null)) {
                next.hasNext();
                Case.out("evaluated", next.timings().nPromptEvaluated);
                Case.out("of", next.timings().nPrompt);
            }
        }
    }

    /** model: a chat whose answer's tokens are single characters, as no tokenizer splits it */
    static void tokens(String[] a) throws Exception {
        try (SpikingBrain model = SpikingBrain.load(new File(a[0]), new ModelOptions()); Session session = model.newSession(GREEDY.sessionOptions(false))) {
            List<ChatMessage> question = Arrays.asList(ChatMessage.user("hi"));
            List<ChatMessage> turn = Arrays.asList(question.get(0), ChatMessage.assistant("hello world"));
            int[] known = model.tokenize(model.applyChatTemplate(question, true), true, true);
            for (String c : "hello world".split("")) {
                int[] one = model.tokenize(c, false, true);
                known = Arrays.copyOf(known, known.length + 1);
                known[known.length - 1] = one[0];
            }
            Case.out("known", new JSONArray(Arrays.toString(known)));
            Case.out("kept", new JSONArray(Arrays.toString(read(session, turn, known))));
            List<ChatMessage> other = Arrays.asList(question.get(0), ChatMessage.assistant("hello there"));
            Case.out("other", new JSONArray(Arrays.toString(read(session, other, known))));
            Case.out("whole", new JSONArray(Arrays.toString(read(session, other, new int[0]))));
            Case.out("foreign", new JSONArray(Arrays.toString(read(session, other, new int[] { 1 << 30 }))));
        }
    }

    /** What the session holds of the next question's prompt. */
    private static int[] read(Session session, List<ChatMessage> turn, int[] known) {
        Conversation chat = new Conversation(turn, known);
        chat.ask("again");
        session.reset();
        try (Generation answer = chat.answer(session, GREEDY.generateOptions(), null)) {
            answer.hasNext();
        }
        return session.tokens();
    }

    /** folder, model: a load that is stopped when it has begun, and one in whose place another comes; consumers are let go */
    static void stopLoading(String[] a) throws Exception {
        Watcher w = new Watcher();
        Engine engine = new Engine(new Store(new File(a[0])), w);
        List<String> lines = new ArrayList<>();
        FileSource slow = source(a[1]);
        slow.onShare = () -> {
            lines.add(engine.status().line);
            if (lines.size() == 2) {
                engine.stop();
            }
        };
        engine.load(slow, GREEDY, false);
        w.await(Engine.State.EMPTY);
        Case.out("stopped", engine.status().name + "|" + lines.size());
        slow.onShare = () -> {
            slow.onShare = () -> {};
            engine.load(source(a[1]), GREEDY, false);
        };
        engine.load(slow, GREEDY, false);
        w.await(Engine.State.EMPTY);
        w.await(Engine.State.READY);
        Case.out("line", lines.get(1));
        Case.out("loaded", engine.status().name.isEmpty() ? "" : "READY");
        BlockingQueue<SpikeReport> got = new LinkedBlockingQueue<>();
        java.util.function.Consumer<SpikeReport> screen = got::add;
        WeakReference<Object> kept = new WeakReference<>(screen);
        engine.spikes(screen);
        engine.send("say hello");
        w.await(Engine.State.READY);
        screen = null;
        for (int i = 0; i < 20 && kept.get() != null; ++i) {
            System.gc();
            Thread.sleep(10);
        }
        Case.out("kept", kept.get() != null);
        w.takeMessages();
        engine.close();
        engine.close();
        Case.out("messages", w.takeMessages());
    }

    /** folder, model: eight lives of a process, each with a drawn answer: what each evaluates of its prompt */
    static void lives(String[] a) throws Exception {
        Settings drawn = new Settings("1", Settings.Spikes.AS_FILE, "", "1.2", "32", "64", false);
        for (int life = 0; life < 8; ++life) {
            Watcher w = new Watcher();
            try (Engine engine = loaded(a[0], a[1], drawn, w)) {
                engine.send("write a function that reads a file");
                w.await(Engine.State.READY);
                engine.save();
                Case.out("line", engine.status().line);
                Case.out("messages", w.takeMessages());
            }
        }
    }

    /** folder, model, bytes of memory: a model that does not fit, and what the app says of it */
    static void tooLarge(String[] a) throws Exception {
        Watcher w = new Watcher();
        try (Engine engine = new Engine(new Store(new File(a[0])), w)) {
            engine.load(new FileSource(a[1], Long.parseLong(a[2])), GREEDY, false);
            w.await(Engine.State.EMPTY);
            Case.out("said", w.takeMessages());
        }
    }

    /** folder, model, another model, no model: what is refused, and that it goes on */
    static void refusals(String[] a) throws Exception {
        Watcher w = new Watcher();
        try (Engine engine = new Engine(new Store(new File(a[0])), w)) {
            engine.send("nobody there");
            engine.spikes(report -> {});
            engine.measure(new Benchmark(1, 1, 1, new BenchRows("", "", ""), text -> {}), rows -> {});
            engine.load(source(a[3]), GREEDY, false);
            w.await(Engine.State.EMPTY);
            Case.out("none", w.takeMessages());
            engine.load(source(a[0] + "/missing.gguf"), GREEDY, false);
            w.await(Engine.State.EMPTY);
            Case.out("missing", w.takeMessages());
            engine.load(new FileSource(a[1], 1 << 20), GREEDY, false);
            w.await(Engine.State.EMPTY);
            Case.out("large", w.takeMessages());
            engine.load(new FileSource(a[1], 1 << 20), GREEDY, true);
            w.await(Engine.State.READY);
            Case.out("forced", w.takeMessages() + engine.status().line);
            engine.load(source(a[2]), new Settings("1", Settings.Spikes.AS_FILE, "2", "0", "32", "8", false), false);
            w.await(Engine.State.EMPTY);
            Case.out("k", w.takeMessages());
            engine.load(source(a[1]), GREEDY, false);
            w.await(Engine.State.READY);
            engine.spikes(report -> {});
            engine.send("say hello");
            w.await(Engine.State.READY);
            Case.out("uncounted", w.takeMessages());
            engine.save();
            engine.load(source(a[2]), GREEDY, false);
            w.await(Engine.State.READY);
            Case.out("other", w.takeMessages());
            engine.load(source(a[1]), GREEDY, false);
            w.await(Engine.State.READY);
            w.takeMessages();
            Case.out("writes", writeNowhere(engine, w, a[0]));
        }
    }

    /** The store's folder is gone: a message, and the chat goes on. */
    private static String writeNowhere(Engine engine, Watcher w, String folder) throws Exception {
        File moved = new File(folder + ".moved");
        Files.move(new File(folder).toPath(), moved.toPath());
        engine.send("again");
        w.await(Engine.State.READY);
        engine.save();
        Files.move(moved.toPath(), new File(folder).toPath());
        engine.send("again");
        w.await(Engine.State.READY);
        return w.takeMessages() + "|" + engine.chat().messages().size();
    }

    /** folder, model: rows */
    static void bench(String[] a) throws Exception {
        Watcher w = new Watcher();
        try (Engine engine = loaded(a[0], a[1], GREEDY, w)) {
            BenchRows rows = new BenchRows("Phone", "llama-cpp-python==0.0.0", "0123456789ab");
            List<String> progress = new ArrayList<>();
            List<JSONObject> found = new ArrayList<>();
            engine.measure(new Benchmark(48, 6, 5, rows, progress::add), found::addAll);
            w.await(Engine.State.READY);
            Case.out("progress", String.join("|", progress));
            Files.write(new File(a[0], "rows.jsonl").toPath(), BenchRows.jsonl(found).getBytes("UTF-8"));
            Case.out("summary", Benchmark.summary(found));
            engine.measure(new Benchmark(48, 100000, 1, rows, text -> {
                if (text.startsWith("tg")) {
                    new Thread(engine::stop).start();
                }
            }), found::addAll);
            w.await(Engine.State.READY);
            Case.out("stopped", w.takeMessages() + "|" + found.size());
            engine.send("say hello");
            w.await(Engine.State.READY);
            Case.out("chat", engine.chat().messages().size());
        }
        Case.out("wrong", Case.failure(() -> new Benchmark(0, 1, 1, null, null)));
    }

    /** folder, model */
    static void spikes(String[] a) throws Exception {
        Watcher w = new Watcher();
        try (Engine engine = loaded(a[0], a[1], COUNTING, w)) {
            for (int turn = 0; turn < 2; ++turn) {
                BlockingQueue<SpikeReport> got = new LinkedBlockingQueue<>();
                engine.spikes(got::add);
                SpikeReport report = got.poll(60, TimeUnit.SECONDS);
                Case.out("tokens", report.nTokens);
                Case.out("labels", String.join(" ", report.labels));
                JSONArray shares = new JSONArray();
                for (double share : report.shares) {
                    shares.put(share);
                }
                Case.out("shares", shares);
                Case.out("text", report.text);
                engine.send("say hello");
                w.await(Engine.State.READY);
            }
            Case.out("line", engine.status().line);
            Case.out("messages", w.takeMessages());
        }
    }
}
