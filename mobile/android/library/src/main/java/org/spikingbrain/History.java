package org.spikingbrain;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** Tokens at positions 0, 1, ...; which of them count is the caller's n, asked of the model's memory. As history.py, and with its hashes. */
final class History {
    /** Tokens per link of the hash chain; a snapshot carries the last BLOCK to 2 * BLOCK - 1 tokens. */
    static final int BLOCK = 1024;

    private int base; // a multiple of BLOCK; tokens before it are known by their hash alone
    private int[] ids = new int[0];
    private List<byte[]> links = new ArrayList<>(Arrays.asList(new byte[32])); // chain of the first base, base + BLOCK, ... tokens

    /** What a snapshot after n tokens keeps of them. */
    static final class Cut {
        final byte[] prefix; // hash of the tokens before the tail
        final int[] tail;

        Cut(byte[] prefix, int[] tail) {
            this.prefix = prefix;
            this.tail = tail;
        }
    }

    static History of(int n, Cut cut) {
        History out = new History();
        out.base = n - cut.tail.length;
        out.ids = cut.tail.clone();
        out.links = new ArrayList<>(Arrays.asList(cut.prefix));
        return out;
    }

    /** Tokens at positions at, at + 1, ...; what followed is forgotten. at = 0 begins anew. */
    void write(int at, int[] more) {
        if (at < base) {
            base = 0;
            links = new ArrayList<>(Arrays.asList(new byte[32]));
        }
        int first = at - base;
        if (first + more.length > ids.length) {
            ids = Arrays.copyOf(ids, Math.max(first + more.length, Math.max(2 * ids.length, 1024)));
        }
        System.arraycopy(more, 0, ids, first, more.length);
        links = new ArrayList<>(links.subList(0, Math.min(links.size(), first / BLOCK + 1)));
    }

    /** [n], a copy; -1 where only the hash is known. */
    int[] all(int n) {
        int[] out = new int[n];
        Arrays.fill(out, -1);
        if (n > base) {
            System.arraycopy(ids, 0, out, base, n - base);
        }
        return out;
    }

    /** The last k of n tokens, fewer where they are not known. */
    int[] last(int n, int k) {
        int end = Math.max(0, n - base);
        return Arrays.copyOfRange(ids, Math.max(0, end - k), end);
    }

    /** Length of the longest common beginning with a prompt; 0 when the part that is hashed differs or is cut. */
    int common(int n, int[] prompt) {
        if (n == 0 || prompt.length < base) {
            return 0;
        }
        byte[] digest = new byte[32];
        for (int i = 0; i < base; i += BLOCK) {
            digest = chain(digest, prompt, i);
        }
        if (!Arrays.equals(digest, links.get(0))) {
            return 0;
        }
        int m = Math.min(n, prompt.length);
        int at = Math.min(base, m);
        while (at < m && ids[at - base] == prompt[at]) {
            ++at;
        }
        return at;
    }

    Cut cut(int n) {
        int begin = Math.max(base, (n / BLOCK - 1) * BLOCK) - base;
        while (links.size() <= begin / BLOCK) {
            links.add(chain(links.get(links.size() - 1), ids, (links.size() - 1) * BLOCK));
        }
        return new Cut(links.get(begin / BLOCK), Arrays.copyOfRange(ids, begin, n - base));
    }

    /** The chain's next link: SHA-256 of the one before and one block of tokens, little-endian. */
    private static byte[] chain(byte[] before, int[] tokens, int from) {
        ByteBuffer block = ByteBuffer.allocate(32 + 4 * BLOCK).order(ByteOrder.LITTLE_ENDIAN);
        block.put(before);
        for (int i = 0; i < BLOCK; ++i) {
            block.putInt(tokens[from + i]);
        }
        return Prints.sha256().digest(block.array());
    }
}
