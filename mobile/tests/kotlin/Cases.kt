package org.spikingbrain.ktx.cases

import java.io.File
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.runBlocking

/** Runs one case for pytest: CasesKt name arguments...; what it finds goes out as lines of name and JSON value. */
public fun main(args: Array<String>) {
    val rest = args.drop(1)
    when (args[0]) {
        "text" -> runBlocking { text(rest[0]) }
        "chat" -> runBlocking { chat(rest[0]) }
        "constrained" -> runBlocking { constrained(rest[0]) }
        "conversation" -> runBlocking { conversation(rest[0]) }
        "parallel" -> runBlocking { parallel(rest[0]) }
        "loading" -> runBlocking { loading(rest[0]) }
        "readme" -> runBlocking { readme(File(rest[0]), File(rest[1])) { say("show", it) } }
        "callbacks" -> runBlocking { callbacks(rest[0]) }
        "prompt" -> runBlocking { cancelledPrompt(rest[0]) }
        "answer" -> runBlocking { cancelledAnswer(rest[0]) }
        "waiting" -> runBlocking { cancelledWaiting(rest[0]) }
        "errors" -> runBlocking { errors(rest[0], rest[1]) }
        "options" -> runBlocking { options(rest[0]) }
        "closing" -> runBlocking { closing(rest[0]) }
        else -> error("no case ${args[0]}")
    }
}

@Synchronized
internal fun say(name: String, value: Any?) {
    println("$name\t${json(value)}")
    System.out.flush()
}

private fun json(value: Any?): String = when (value) {
    null, is Number, is Boolean -> value.toString()
    is IntArray -> value.joinToString(",", "[", "]")
    is Iterable<*> -> value.joinToString(",", "[", "]", transform = ::json)
    else -> value.toString().map { if (it in ' '..'~' && it != '"' && it != '\\') it.toString() else "\\u%04x".format(it.code) }.joinToString("", "\"", "\"")
}

/** Run it; what it ends in, as "class: message". */
internal inline fun failure(block: () -> Unit): String = try {
    block()
    "none"
} catch (e: CancellationException) {
    "CancellationException"
} catch (e: Throwable) {
    "${e.javaClass.simpleName}: ${e.message}"
}

/** Threads that the module started and that have not ended; they do so without being asked, soon after their owner was closed. */
internal fun leaked(): List<String> {
    repeat(200) {
        if (ours().isEmpty()) return emptyList()
        Thread.sleep(10)
    }
    return ours()
}

private fun ours() = Thread.getAllStackTraces().keys.map { it.name }.filter { it.startsWith("spikingbrain") }

/** Whether a file is mapped: a model that was not freed. */
internal fun mapped(file: String): Boolean = File("/proc/self/maps").readLines().any { it.endsWith(File(file).canonicalPath) }
