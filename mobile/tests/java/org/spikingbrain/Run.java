package org.spikingbrain;

import java.lang.reflect.InvocationTargetException;
import java.util.Arrays;

/** Runs one case for pytest: java org.spikingbrain.Run Class method arguments...; what it finds goes out as lines of name and JSON value. */
public final class Run {
    private Run() {}

    public static void main(String[] args) throws Exception {
        Class<?> type = Class.forName("org.spikingbrain." + args[0]);
        String[] rest = Arrays.copyOfRange(args, 2, args.length);
        try {
            type.getDeclaredMethod(args[1], String[].class).invoke(null, (Object) rest);
        } catch (InvocationTargetException e) {
            Throwable cause = e.getCause();
            out("exception", cause.getClass().getName());
            out("message", cause.getMessage());
            if (cause instanceof Error) {
                cause.printStackTrace();
            }
        }
        System.out.flush();
    }

    static synchronized void out(String name, Object value) {
        System.out.println(name + "\t" + json(value));
        System.out.flush();
    }

    /** Run it; the exception it ends in as "class: message". */
    static String failure(Failing call) {
        try {
            call.run();
            return "none";
        } catch (Exception e) {
            return e.getClass().getSimpleName() + ": " + e.getMessage();
        }
    }

    interface Failing {
        void run() throws Exception;
    }

    private static String json(Object value) {
        if (value instanceof int[]) {
            return Arrays.toString((int[]) value);
        }
        if (value instanceof long[]) {
            return Arrays.toString((long[]) value);
        }
        if (value instanceof Number || value instanceof Boolean || value == null) {
            return String.valueOf(value);
        }
        StringBuilder quoted = new StringBuilder("\"");
        for (char c : value.toString().toCharArray()) {
            quoted.append(c < 0x20 || c > 0x7E || c == '"' || c == '\\' ? String.format("\\u%04x", (int) c) : String.valueOf(c));
        }
        return quoted.append('"').toString();
    }
}
