package org.spikingbrain.app.core;

import org.json.JSONArray;
import org.json.JSONObject;

import java.io.File;
import java.util.ArrayList;
import java.util.List;

/** Cases that need no native library. */
final class Plain {
    private Plain() {}

    static void settings(String[] a) throws Exception {
        Settings made = new Settings(" 3", Settings.Spikes.ON, "2.5", "0", "128", "64", true);
        Settings read = Settings.fromJson(new JSONObject(made.toJson().toString()));
        Case.out("read", read.toJson());
        Case.out("threads", read.threads());
        Case.out("same", !read.reloads(made));
        Case.out("temperature", !new Settings("3", Settings.Spikes.ON, "2.5", "1.1", "128", "9", true).reloads(made));
        Case.out("k", new Settings("3", Settings.Spikes.ON, "3", "0", "128", "64", true).reloads(made));
        String[][] wrong = { { "x", "", "0.8", "512", "0" }, { "9999", "", "0.8", "512", "0" }, { "0", "-1", "0.8", "512", "0" }, { "0", "nan", "0.8", "512", "0" },
            { "0", "", "hot", "512", "0" }, { "0", "", "0.8", "0", "0" }, { "0", "", "0.8", "512", "-3" }, { "", "", "0.8", "512", "0" } };
        for (String[] w : wrong) {
            Case.out("wrong", Case.failure(() -> new Settings(w[0], Settings.Spikes.AS_FILE, w[1], w[2], w[3], w[4], false)));
        }
        Case.out("wrong", Case.failure(() -> new Settings("0", Settings.Spikes.OFF, "3", "0", "512", "0", false)));
    }

    /** folder */
    static void store(String[] a) throws Exception {
        File folder = new File(a[0]);
        Store store = new Store(folder);
        store.open();
        Case.out("none", store.current() == null && store.models().isEmpty());
        store.use(new ModelEntry("content://a", "a.gguf", 5));
        store.use(new ModelEntry("content://b", "b \"é\".gguf", 0));
        store.use(new ModelEntry("content://a", "a2.gguf", 5));
        store.settings(new Settings("2", Settings.Spikes.OFF, "", "0.5", "64", "0", false));
        Store again = new Store(folder);
        again.open();
        Case.out("names", again.models().get(0).name + "|" + again.models().get(1).name + "|" + again.models().size());
        Case.out("threads", again.settings().nThreads);
        again.remove(again.models().get(0));
        Store third = new Store(folder);
        third.open();
        Case.out("left", third.current().name);
        TextFile.write(new File(folder, "app.json"), "{\"settings\": {");
        Store damaged = new Store(folder);
        Case.out("damaged", Case.failure(damaged::open));
        damaged.use(new ModelEntry("content://c", "c.gguf", 1));
        Store fixed = new Store(folder);
        fixed.open();
        Case.out("fixed", fixed.current().name);
        Case.out("nowhere", Case.failure(() -> new Store(new File(folder, "none")).use(new ModelEntry("u", "n", 0))));
        TextFile.write(new File(folder, "chat.json"), "{\"messages\": [{\"role\": \"assistant\", \"content\": \"x\"}], \"draft\": \"\", \"tokens\": []}");
        Case.out("chat", Case.failure(damaged::readChat));
    }

    /** All sequences of 7 events: never a stop between a start and started(); in the end the service runs exactly if it is wanted. */
    static void foreground(String[] a) {
        int nSequences = 0;
        for (int code = 0; code < 1 << 7; ++code) {
            Foreground f = new Foreground();
            boolean starting = false;
            boolean running = false;
            boolean wanted = false;
            for (int i = 0; i < 9; ++i) {
                boolean arrive = i >= 7 || (code >> i & 1) == 1 && starting;
                if (!arrive) {
                    wanted = (code >> i & 1) == 0;
                }
                Foreground.Command c = arrive ? (starting ? f.started() : Foreground.Command.NONE) : f.want(wanted);
                if (arrive && starting) {
                    starting = false;
                    running = true;
                }
                if (c == Foreground.Command.STOP && (starting || !running)) {
                    throw new AssertionError("stopped before it started: " + code);
                }
                if (c == Foreground.Command.START && (starting || running)) {
                    throw new AssertionError("started twice: " + code);
                }
                running = c == Foreground.Command.STOP ? false : running;
                starting = c == Foreground.Command.START || starting;
            }
            if (running != wanted || starting) {
                throw new AssertionError("wanted " + wanted + ", is " + running + ": " + code);
            }
            ++nSequences;
        }
        Case.out("sequences", nSequences);
        Foreground refused = new Foreground();
        refused.want(true);
        refused.gone();
        Case.out("again", refused.want(true));
    }

    static void coalescer(String[] a) {
        List<Runnable> later = new ArrayList<>();
        List<Long> delays = new ArrayList<>();
        int[] updates = { 0 };
        Coalescer[] c = new Coalescer[1];
        c[0] = new Coalescer((what, delay) -> {
            later.add(what);
            delays.add(delay);
        }, 50, () -> {
            if (++updates[0] == 1) {
                c[0].changed(); // during the update: shown by the next
            }
        });
        for (int i = 0; i < 100; ++i) {
            c[0].changed();
        }
        Case.out("posted", later.size());
        later.remove(0).run();
        Case.out("next", later.size());
        later.remove(0).run();
        Case.out("updates", updates[0]);
        Case.out("left", later.size());
        Case.out("delay", delays.get(0));
    }

    /** lists of numbers, as JSON */
    static void scatter(String[] a) throws Exception {
        JSONArray lists = new JSONArray(a[0]);
        for (int i = 0; i < lists.length(); ++i) {
            double[] v = new double[lists.getJSONArray(i).length()];
            for (int j = 0; j < v.length; ++j) {
                v[j] = lists.getJSONArray(i).getDouble(j);
            }
            Case.out("both", new JSONArray().put(Scatter.median(v)).put(Scatter.spread(v)));
        }
    }

    /** folder in place of /proc */
    static void machine(String[] a) throws Exception {
        Machine here = new Machine(new File("/proc"), "Phone");
        Case.out("describe", here.describe());
        Case.out("features", here.cpuFeatures());
        Case.out("peak", here.peakResident());
        Machine phone = new Machine(new File(a[0]), "Phone");
        Case.out("phone", phone.describe().getString("cpu"));
        Case.out("arm", phone.cpuFeatures());
        Case.out("none", Case.failure(phone::peakResident));
    }

    static void format(String[] a) {
        Case.out("mib", Format.mib(0) + "|" + Format.mib(3 << 19) + "|" + Format.mib(10 << 20) + "|" + Format.mib(1254L << 20));
        Case.out("rate", Format.rate(12.345, 0.021));
        Case.out("failure", Format.failure(new RuntimeException()) + "|" + Format.failure(new RuntimeException("said")));
        for (String[] t : new String[][] { { "0", "x" }, { "1", "x" }, { "2", "x" }, { "7", "x" }, { "7", "m-INT8.gguf" }, { "32", "x" }, { "15", "x" }, { null, "x" } }) {
            Case.out("type", BenchRows.type(t[0], t[1]));
        }
    }
}
