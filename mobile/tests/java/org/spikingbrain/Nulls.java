package org.spikingbrain;

import java.io.File;
import java.io.IOException;
import java.lang.reflect.Constructor;
import java.lang.reflect.Executable;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** null in the place of every argument of every public method. */
final class Nulls {
    private static final Class<?>[] TYPES = { SpikingBrain.class, Session.class, Parallel.class, Conversation.class, Grammar.class, Tool.class, ToolCall.class,
        ToolChoice.class, ChatMessage.class, GenerateOptions.class, SessionOptions.class, ModelOptions.class, MemoryEstimate.class, Generation.class,
        CountHistogram.class, SpikeStats.class };

    private Nulls() {}

    /** model, a folder */
    static void arguments(String[] a) throws Exception {
        Map<Class<?>, Object> given = samples(a);
        try (SpikingBrain model = Setup.load(a[0]); Session session = model.newSession(Setup.small()); Parallel parallel = model.newParallel(Setup.small(), 1)) {
            given.put(SpikingBrain.class, model);
            given.put(Session.class, session);
            given.put(Parallel.class, parallel);
            given.put(Generation.class, session.generate("the", Setup.GREEDY, null));
            for (Class<?> type : TYPES) {
                List<Executable> calls = new ArrayList<>(Arrays.asList(type.getConstructors()));
                for (Method m : type.getDeclaredMethods()) {
                    if (Modifier.isPublic(m.getModifiers()) && !m.isSynthetic()) {
                        calls.add(m);
                    }
                }
                for (Executable call : calls) {
                    Class<?>[] types = call.getParameterTypes();
                    for (int i = 0; i < types.length; ++i) {
                        if (!types[i].isPrimitive()) {
                            Run.out("call", type.getSimpleName() + "." + (call instanceof Method ? call.getName() : "new") + Arrays.toString(
                                Arrays.stream(types).map(Class::getSimpleName).toArray()) + " " + i + ": " + outcome(call, given, i));
                        }
                    }
                }
            }
        }
    }

    private static Map<Class<?>, Object> samples(String[] a) throws IOException {
        Map<Class<?>, Object> given = new HashMap<>();
        given.put(String.class, "a");
        given.put(String[].class, new String[] { "a" });
        given.put(int[].class, new int[] { 1 });
        given.put(File.class, new File(a[0]));
        given.put(List.class, Collections.emptyList());
        given.put(Map.class, Collections.emptyMap());
        given.put(Boolean.class, false);
        given.put(Double.class, 2.0);
        given.put(int.class, 1);
        given.put(long.class, 0L);
        given.put(double.class, 1.0);
        given.put(boolean.class, false);
        given.put(ModelOptions.class, new ModelOptions());
        given.put(SessionOptions.class, Setup.small());
        given.put(GenerateOptions.class, new GenerateOptions());
        given.put(Grammar.class, Grammar.gbnf("root ::= \"a\""));
        given.put(ToolChoice.class, ToolChoice.AUTO);
        given.put(ChatMessage.class, ChatMessage.user("a"));
        given.put(Conversation.class, new Conversation());
        given.put(Progress.class, (Progress) (done, total) -> {});
        given.put(LoadProgress.class, (LoadProgress) share -> true);
        return given;
    }

    private static String outcome(Executable call, Map<Class<?>, Object> given, int at) throws Exception {
        Class<?>[] types = call.getParameterTypes();
        Object[] values = new Object[types.length];
        for (int i = 0; i < values.length; ++i) {
            values[i] = i == at ? null : given.get(types[i]);
        }
        if (!(call instanceof Constructor) && values.length > 1 && call.getName().equals("chat") && at > 0) {
            values[0] = types[0] == List.class && call.getDeclaringClass() == Session.class ? Setup.chat("user", "a") : Collections.emptyList();
        }
        try {
            Object out = call instanceof Constructor ? ((Constructor<?>) call).newInstance(values)
                : ((Method) call).invoke(Modifier.isStatic(call.getModifiers()) ? null : given.get(call.getDeclaringClass()), values);
            if (out instanceof SpikingBrain) {
                ((SpikingBrain) out).close();
            }
            return "none";
        } catch (InvocationTargetException e) {
            return e.getCause().getClass().getSimpleName() + ": " + e.getCause().getMessage();
        }
    }
}
