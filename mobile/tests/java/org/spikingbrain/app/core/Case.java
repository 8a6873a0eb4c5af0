package org.spikingbrain.app.core;

import org.json.JSONObject;

import java.lang.reflect.InvocationTargetException;
import java.util.Arrays;

/** Runs one case for pytest: java org.spikingbrain.app.core.Case Class method arguments...; what it finds goes out as lines of name and JSON value. */
public final class Case {
    private Case() {}

    public static void main(String[] args) throws Exception {
        Class<?> type = Class.forName("org.spikingbrain.app.core." + args[0]);
        try {
            type.getDeclaredMethod(args[1], String[].class).invoke(null, (Object) Arrays.copyOfRange(args, 2, args.length));
        } catch (InvocationTargetException e) {
            e.getCause().printStackTrace();
            System.exit(1);
        }
    }

    static synchronized void out(String name, Object value) {
        boolean plain = value instanceof Number || value instanceof Boolean || value instanceof JSONObject || value instanceof org.json.JSONArray;
        System.out.println(name + "\t" + (plain ? value.toString() : JSONObject.quote(String.valueOf(value))));
        System.out.flush();
    }

    interface Failing {
        void run() throws Exception;
    }

    /** The exception it ends in, as "class: message". */
    static String failure(Failing call) {
        try {
            call.run();
            return "none";
        } catch (Exception e) {
            return e.getClass().getSimpleName() + ": " + e.getMessage();
        }
    }
}
