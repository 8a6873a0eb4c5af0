package android.os;

public class Build {
    public static final String SOC_MODEL = String.valueOf("");

    public static class VERSION {
        public static final int SDK_INT = Integer.parseInt("0"); // no constant: it would be compiled in
    }

    public static class VERSION_CODES {
        public static final int S = 31;
        public static final int TIRAMISU = 33;
        public static final int VANILLA_ICE_CREAM = 35;
    }
}
