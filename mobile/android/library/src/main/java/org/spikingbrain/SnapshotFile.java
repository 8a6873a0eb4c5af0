package org.spikingbrain;

import java.io.Closeable;
import java.io.EOFException;
import java.io.File;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.StandardOpenOption;
import java.security.MessageDigest;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * A snapshot's file, the same bytes as the Python package's (state.py, version 3), little-endian:
 * magic, version, size of the header; the header, a flat JSON object padded with spaces; 2047 tokens, the tail first; logits, float32;
 * llama.cpp's bytes of the sequence; SHA-256 of all that precedes it.
 */
final class SnapshotFile implements Closeable {
    static final int VERSION = 3;
    private static final byte[] MAGIC = { 'S', 'B', 'S', 'N', 'A', 'P', 0, 0 };
    private static final int HEAD = 16;
    private static final int PAD = 512;
    private static final int N_TAIL = 2 * History.BLOCK - 1;
    private static final int SUM = 32;
    private static final Pattern FIELD = Pattern.compile("\\G\\s*([{,])\\s*\"(\\w+)\"\\s*:\\s*(?:\"([0-9a-f]*)\"|(\\d{1,18}))");

    final String fingerprint;
    final String tokenizer;
    final int nTokens;
    final History.Cut history;
    /** Logits and data lie in memory: [logitsAt, dataAt), [dataAt, end). */
    final NativeMemory memory;
    final long logitsAt;
    final long dataAt;
    final long end;

    SnapshotFile(String fingerprint, String tokenizer, int nTokens, History.Cut history, NativeMemory memory, long logitsAt, long dataAt, long end) {
        this.fingerprint = fingerprint;
        this.tokenizer = tokenizer;
        this.nTokens = nTokens;
        this.history = history;
        this.memory = memory;
        this.logitsAt = logitsAt;
        this.dataAt = dataAt;
        this.end = end;
    }

    int nLogits() {
        return (int) ((dataAt - logitsAt) / 4);
    }

    @Override
    public void close() {
        memory.close();
    }

    // --- writing -------------------------------------------------------------------------------------------------

    /** IOException: see WholeFile.write. */
    void save(File file, Set<File> inputs) throws IOException {
        ByteBuffer begin = begin();
        ByteBuffer body = memory.bytes();
        body.limit((int) end).position((int) logitsAt);
        MessageDigest digest = Prints.sha256();
        digest.update(begin.duplicate());
        digest.update(body.duplicate());
        ByteBuffer sum = ByteBuffer.wrap(digest.digest());
        WholeFile.write(file, inputs, begin, body, sum);
    }

    /** All up to the logits. */
    private ByteBuffer begin() {
        String json = "{\"fingerprint\": \"" + fingerprint + "\", \"tokenizer\": \"" + tokenizer + "\", \"n_tokens\": " + nTokens
            + ", \"prefix\": \"" + Prints.hex(history.prefix) + "\", \"n_tail\": " + history.tail.length + ", \"n_logits\": " + nLogits()
            + ", \"n_data\": " + (end - dataAt) + "}";
        byte[] header = Prints.utf8(json);
        int size = (HEAD + header.length + PAD - 1) / PAD * PAD - HEAD;
        ByteBuffer out = ByteBuffer.allocate(HEAD + size + 4 * N_TAIL).order(ByteOrder.LITTLE_ENDIAN);
        out.put(MAGIC).putInt(VERSION).putInt(size).put(header);
        while (out.position() < HEAD + size) {
            out.put((byte) ' ');
        }
        for (int token : history.tail) {
            out.putInt(token);
        }
        out.rewind();
        return out;
    }

    // --- reading -------------------------------------------------------------------------------------------------

    /** IOException: no such file, no snapshot, another version, cut short or damaged. */
    static SnapshotFile load(File file) throws IOException {
        try (FileChannel channel = FileChannel.open(file.toPath(), StandardOpenOption.READ)) {
            long size = channel.size();
            byte[] magic = new byte[(int) Math.min(size, MAGIC.length)];
            readFully(channel, ByteBuffer.wrap(magic));
            if (!Arrays.equals(magic, MAGIC) || size < HEAD + SUM) {
                throw new IOException("snapshot: " + file + ": got " + size + " bytes that do not begin as one, expected \"SBSNAP\"; give a snapshot");
            }
            if (size > Integer.MAX_VALUE) {
                throw new IOException("snapshot: " + file + ": got " + size + " bytes, expected less than 2 GiB; save it again");
            }
            NativeMemory memory = new NativeMemory(size);
            try {
                channel.position(0);
                readFully(channel, memory.bytes());
                return parse(memory, (int) size);
            } catch (IOException | RuntimeException e) {
                memory.close();
                throw e;
            }
        }
    }

    private static void readFully(FileChannel channel, ByteBuffer into) throws IOException {
        while (into.hasRemaining()) {
            if (channel.read(into) < 0) {
                throw new EOFException("snapshot: got a file that became shorter, expected it whole; save it again");
            }
        }
    }

    private static SnapshotFile parse(NativeMemory memory, int size) throws IOException {
        ByteBuffer all = memory.bytes();
        int version = all.getInt(8);
        if (version != VERSION) {
            throw new IOException("snapshot: version: got " + version + ", expected " + VERSION + "; save it again");
        }
        checkSum(all, size);
        long nHeader = all.getInt(12) & 0xFFFFFFFFL;
        long tailAt = HEAD + nHeader;
        Map<String, String> header = tailAt + 4 * N_TAIL + SUM <= size ? readHeader(all, (int) nHeader) : new HashMap<>();
        long nTokens = count(header, "n_tokens");
        long nTail = count(header, "n_tail");
        long logitsAt = tailAt + 4 * N_TAIL;
        long dataAt = logitsAt + 4 * count(header, "n_logits");
        long end = dataAt + count(header, "n_data");
        boolean sizes = dataAt >= logitsAt && end >= dataAt && end + SUM == size;
        boolean tail = nTokens >= 0 && nTokens <= 1 << 30 && nTail >= 0 && nTail <= Math.min(nTokens, N_TAIL) && (nTokens - nTail) % History.BLOCK == 0;
        if (!sizes || !tail || text(header, "prefix").length() != 64) {
            throw new IOException("snapshot: header: got " + header + ", expected counts that fit " + size + " bytes; save it again");
        }
        int[] ids = new int[(int) nTail];
        for (int i = 0; i < ids.length; ++i) {
            ids[i] = all.getInt((int) tailAt + 4 * i);
        }
        return new SnapshotFile(text(header, "fingerprint"), text(header, "tokenizer"), (int) nTokens,
            new History.Cut(Prints.unhex(text(header, "prefix")), ids), memory, logitsAt, dataAt, end);
    }

    private static void checkSum(ByteBuffer all, int size) throws IOException {
        ByteBuffer hashed = all.duplicate();
        hashed.limit(size - SUM);
        MessageDigest digest = Prints.sha256();
        digest.update(hashed);
        byte[] sum = new byte[SUM];
        all.position(size - SUM);
        all.get(sum);
        if (!Arrays.equals(digest.digest(), sum)) {
            throw new IOException("snapshot: checksum: got another sum, expected the one at its end; the file is cut short or damaged, save it again");
        }
    }

    /** A flat JSON object of counts and hashes; what is written otherwise ends it, and is then missing. */
    private static Map<String, String> readHeader(ByteBuffer all, int n) {
        byte[] raw = new byte[n];
        all.position(HEAD);
        all.get(raw);
        Map<String, String> out = new HashMap<>();
        Matcher m = FIELD.matcher(Prints.text(raw));
        while (m.find() && m.group(1).equals(out.isEmpty() ? "{" : ",")) {
            out.put(m.group(2), m.group(3) != null ? "\"" + m.group(3) : m.group(4));
        }
        return out;
    }

    private static long count(Map<String, String> header, String name) {
        String value = header.get(name);
        return value == null || value.startsWith("\"") ? -1 : Math.min(Long.parseLong(value), 1L << 40);
    }

    private static String text(Map<String, String> header, String name) {
        String value = header.get(name);
        return value != null && value.startsWith("\"") ? value.substring(1) : "";
    }
}
