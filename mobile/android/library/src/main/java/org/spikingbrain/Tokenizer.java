package org.spikingbrain;

import java.io.ByteArrayOutputStream;
import java.text.Normalizer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** Text to token ids and back: upstream's tokenizer, with the normalisation that it leaves out. As tokenizer.py. */
final class Tokenizer {
    private static final String NORMALIZER_KEY = "tokenizer.ggml.normalizer";
    private static final Pattern LONE_SURROGATE = Pattern.compile("[\\x{D800}-\\x{DFFF}]"); // a pair is one code point to a pattern

    private final long model;
    private final int bos;
    private final boolean nfc;
    private final Pattern[] added; // tokens taken out of a text first: without and with the control tokens

    /** ModelLoadException: a normaliser that is not known here. */
    Tokenizer(long model, Map<String, String> metadata, int bos) throws ModelLoadException {
        String normalizer = metadata.get(NORMALIZER_KEY);
        if (normalizer != null && !normalizer.equals("nfc")) {
            throw new ModelLoadException("load: " + NORMALIZER_KEY + ": got '" + normalizer + "', expected 'nfc' or no such key; convert the model again");
        }
        this.model = model;
        this.bos = bos;
        this.nfc = normalizer != null;
        List<String> texts = texts(Native.addedTokens(model, false));
        Pattern plain = pattern(texts);
        texts.addAll(texts(Native.addedTokens(model, true)));
        this.added = new Pattern[] { plain, pattern(texts) };
    }

    int[] encode(String text, boolean addBos, boolean special) {
        String whole = LONE_SURROGATE.matcher(text).replaceAll("\uFFFD");
        return Native.tokenize(model, Prints.utf8(normalize(whole, special)), addBos, special);
    }

    /** NFC of the text between added tokens: a mark after &lt;|im_end|&gt; must not become one with its '>'. */
    private String normalize(String text, boolean special) {
        if (!nfc || Normalizer.isNormalized(text, Normalizer.Form.NFC)) {
            return text;
        }
        StringBuilder out = new StringBuilder();
        Matcher m = added[special ? 1 : 0].matcher(text);
        int at = 0;
        for (; m.find(); at = m.end()) {
            out.append(Normalizer.normalize(text.substring(at, m.start()), Normalizer.Form.NFC)).append(m.group());
        }
        return out.append(Normalizer.normalize(text.substring(at), Normalizer.Form.NFC)).toString();
    }

    /** Bytes of the tokens, maybe a part of a character at either end; control tokens only with special. */
    byte[] decode(int[] tokens, boolean special) {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        for (int token : tokens) {
            byte[] piece = Native.piece(model, token, special);
            out.write(piece, 0, piece.length);
        }
        byte[] text = out.toByteArray();
        boolean space = tokens.length > 0 && tokens[0] == bos && !special && text.length > 0 && text[0] == ' '; // the tokenizer put it there
        return space ? Arrays.copyOfRange(text, 1, text.length) : text;
    }

    private static List<String> texts(byte[][] utf8) {
        List<String> out = new ArrayList<>();
        for (byte[] text : utf8) {
            if (text.length > 0) {
                out.add(Prints.text(text));
            }
        }
        return out;
    }

    private static Pattern pattern(List<String> texts) {
        List<String> longestFirst = new ArrayList<>(texts);
        longestFirst.sort((a, b) -> Integer.compare(b.length(), a.length()));
        StringBuilder out = new StringBuilder();
        for (String text : longestFirst) {
            out.append(out.length() > 0 ? "|" : "").append(Pattern.quote(text));
        }
        return Pattern.compile(out.length() > 0 ? out.toString() : "(?!)");
    }
}
