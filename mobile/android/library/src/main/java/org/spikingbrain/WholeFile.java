package org.spikingbrain;

import java.io.File;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.security.SecureRandom;
import java.util.HashSet;
import java.util.Set;
import java.util.regex.Pattern;

/** A file that holds all of the bytes or is as it was: written beside, synchronised to the disk, renamed. */
final class WholeFile {
    private static final SecureRandom RANDOM = new SecureRandom();
    private static final Set<String> WRITING = new HashSet<>(); // what this process writes just now

    private WholeFile() {}

    /** IOException: it could not be written; nothing is left beside. */
    static void write(File file, ByteBuffer... parts) throws IOException {
        File target = file.getAbsoluteFile();
        byte[] random = new byte[6];
        RANDOM.nextBytes(random);
        File beside = new File(target.getParentFile(), "." + target.getName() + "." + Prints.hex(random));
        synchronized (WRITING) {
            WRITING.add(beside.getName());
            removeOld(target);
        }
        try {
            writeAll(beside.toPath(), parts);
            Files.move(beside.toPath(), target.toPath(), StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
            try (FileChannel folder = FileChannel.open(target.getParentFile().toPath(), StandardOpenOption.READ)) {
                folder.force(true); // the new name, too
            }
        } catch (IOException e) {
            Files.deleteIfExists(beside.toPath());
            throw new IOException("snapshot: " + file + ": got " + e + ", expected to write it; make room or choose another folder", e);
        } finally {
            synchronized (WRITING) {
                WRITING.remove(beside.getName());
            }
        }
    }

    private static void writeAll(Path path, ByteBuffer[] parts) throws IOException {
        try (FileChannel out = FileChannel.open(path, StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE)) {
            for (ByteBuffer part : parts) {
                while (part.hasRemaining()) {
                    out.write(part);
                }
            }
            out.force(true);
        }
    }

    /** What a process that was killed left beside the target. One process writes a given file. */
    private static void removeOld(File target) {
        Pattern ours = Pattern.compile(Pattern.quote("." + target.getName() + ".") + "[0-9a-f]{12}");
        File[] left = target.getParentFile().listFiles((folder, name) -> ours.matcher(name).matches() && !WRITING.contains(name));
        for (File old : left == null ? new File[0] : left) {
            old.delete();
        }
    }
}
