package org.spikingbrain;

import java.io.File;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.AccessDeniedException;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.PosixFilePermission;
import java.security.SecureRandom;
import java.util.Collections;
import java.util.EnumSet;
import java.util.HashSet;
import java.util.Locale;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * A file that holds all of the bytes or is as it was: written beside, synchronised to the disk, renamed. The rules are those of the Python
 * packages (converter/sb_convert/whole.py): a regular file only, symbolic links followed, never an input.
 */
final class WholeFile {
    private static final SecureRandom RANDOM = new SecureRandom();
    private static final Set<String> WRITING = new HashSet<>(); // what this process writes just now
    private static final Pattern SPLIT = Pattern.compile("(.*)-\\d{5}-of-(\\d{5})\\.gguf", Pattern.DOTALL);
    private static final Set<PosixFilePermission> WRITE =
        EnumSet.of(PosixFilePermission.OWNER_WRITE, PosixFilePermission.GROUP_WRITE, PosixFilePermission.OTHERS_WRITE);

    private WholeFile() {}

    /** Makes a folder's names durable; tests replace it. */
    interface FolderSync {
        void sync(Path folder) throws IOException;
    }

    static FolderSync folderSync = folder -> {
        try (FileChannel channel = FileChannel.open(folder, StandardOpenOption.READ)) {
            channel.force(true);
        }
    };

    /**
     * NotDurableException: it is written and in its place, but its folder could not be synchronised. Any other IOException: it may not or could not
     * be written; what was there is as it was, and nothing is left beside.
     */
    static void write(File file, Set<File> inputs, ByteBuffer... parts) throws IOException {
        Path target = target(file, inputs);
        Path beside = target.resolveSibling(beginning(target) + String.format(Locale.ROOT, "%012x", RANDOM.nextLong() >>> 16) + ".partial");
        synchronized (WRITING) {
            WRITING.add(beside.getFileName().toString());
            removeOld(target);
        }
        try {
            writeAll(beside, target, parts);
            Files.move(beside, target, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
        } catch (IOException e) {
            throw new IOException("snapshot: " + file + ": got " + e + ", expected to write it; make room or choose another folder", e);
        } finally {
            Files.deleteIfExists(beside); // nothing there after the move
            synchronized (WRITING) {
                WRITING.remove(beside.getFileName().toString());
            }
        }
        try {
            folderSync.sync(target.getParent()); // the new name, too
        } catch (IOException e) {
            if (!unknownHere(e)) {
                throw new NotDurableException("snapshot: " + file + ": output: written, but its folder could not be synchronised (" + e
                    + "): a power cut may undo it; do check the disk", e);
            }
        }
    }

    /** There are file systems whose folders cannot be synchronised: EINVAL, ENOTSUP, EACCES. */
    private static boolean unknownHere(IOException e) {
        String why = String.valueOf(e.getMessage()).toLowerCase(Locale.ROOT);
        return e instanceof AccessDeniedException || why.contains("invalid argument") || why.contains("not supported") || why.contains("permission denied");
    }

    /** A file, or all parts of a split model. */
    static Set<File> parts(File file) {
        Matcher split = SPLIT.matcher(file.getPath());
        Set<File> out = new HashSet<>();
        out.add(file);
        for (int i = 1; split.matches() && i <= Integer.parseInt(split.group(2)); ++i) {
            out.add(new File(String.format(Locale.ROOT, "%s-%05d-of-%s.gguf", split.group(1), i, split.group(2))));
        }
        return out;
    }

    // --- the rules -----------------------------------------------------------------------------------------------

    /** The regular file that a name leads to or will; IOException: a rule says no. */
    static Path target(File file, Set<File> inputs) throws IOException {
        Path path = followed(file);
        refuseIf(Files.isDirectory(path), file, "output: got a folder, expected a file name; do add a name to it, or choose another");
        refuseIf(Files.exists(path) && !Files.isRegularFile(path), file,
            "output: got a device, a pipe or a socket, expected a regular file; do choose another name");
        for (File input : inputs) {
            refuseIf(Files.exists(path) && input.exists() && Files.isSameFile(path, input.toPath()), file,
                "output: got a file that this call reads, expected another file than the inputs; do choose another name");
        }
        refuseIf(Files.exists(path) && !writable(path), file,
            "output: got a write-protected file, expected one that may be written; do change its mode, or choose another name");
        refuseIf(!Files.isDirectory(path.getParent()), file, "output folder: got no such folder, expected a writable folder; do create it, or choose another");
        refuseIf(!writable(path.getParent()), file,
            "output folder: got a folder without write permission, expected a writable folder; do choose another");
        return path;
    }

    private static void refuseIf(boolean broken, File file, String why) throws IOException {
        if (broken) {
            throw new IOException("snapshot: " + file + ": " + why);
        }
    }

    /** Where a chain of symbolic links ends; that file need not be there. */
    private static Path followed(File file) throws IOException {
        Path path = file.getAbsoluteFile().toPath();
        for (int n = 0; Files.isSymbolicLink(path); ++n) {
            refuseIf(n == 40, file, "output: got symbolic links in a circle, expected a file; do mend the links or choose another name");
            path = path.resolveSibling(Files.readSymbolicLink(path));
        }
        return path.getFileName() == null ? path : path.getParent().resolve(path.getFileName());
    }

    private static boolean writable(Path path) {
        Set<PosixFilePermission> mode = mode(path);
        return Files.isWritable(path) && (mode.isEmpty() || !Collections.disjoint(mode, WRITE));
    }

    private static Set<PosixFilePermission> mode(Path path) {
        try {
            return Files.getPosixFilePermissions(path);
        } catch (IOException | UnsupportedOperationException e) {
            return Collections.emptySet(); // no file, or a file system without modes
        }
    }

    // --- writing -------------------------------------------------------------------------------------------------

    private static void writeAll(Path path, Path old, ByteBuffer[] parts) throws IOException {
        try (FileChannel out = FileChannel.open(path, StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE)) {
            Set<PosixFilePermission> mode = mode(old);
            if (!mode.isEmpty()) {
                Files.setPosixFilePermissions(path, mode);
            }
            for (ByteBuffer part : parts) {
                while (part.hasRemaining()) {
                    out.write(part);
                }
            }
            out.force(true);
        }
    }

    /** The temporary name is longer than the target's and must fit, too. */
    private static String beginning(Path target) {
        String name = target.getFileName().toString();
        while (name.getBytes(StandardCharsets.UTF_8).length > 200) {
            name = name.substring(0, name.offsetByCodePoints(name.length(), -1));
        }
        return "." + name + ".";
    }

    /** What a process that was killed left beside the target. One process writes a given file. */
    private static void removeOld(Path target) throws IOException {
        Pattern ours = Pattern.compile(Pattern.quote(beginning(target)) + "[0-9a-f]{12}\\.partial");
        File[] left = target.getParent().toFile().listFiles((folder, name) -> ours.matcher(name).matches() && !WRITING.contains(name));
        for (File old : left == null ? new File[0] : left) {
            if (Files.isRegularFile(old.toPath(), LinkOption.NOFOLLOW_LINKS)) {
                Files.deleteIfExists(old.toPath());
            }
        }
    }
}
