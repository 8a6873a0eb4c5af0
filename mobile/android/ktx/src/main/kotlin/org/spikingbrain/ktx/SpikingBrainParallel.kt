package org.spikingbrain.ktx

import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.NonCancellable
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.withContext
import org.spikingbrain.ChatMessage
import org.spikingbrain.GenerateOptions
import org.spikingbrain.Parallel

/** Answers to many prompts, computed together, for coroutines. A coroutine that is cancelled ends its own call and waits for its end. */
public class SpikingBrainParallel internal constructor(
    /** What computes them. */
    public val java: Parallel,
    private val model: SpikingBrainModel,
) : AutoCloseable {
    private val thread = NativeThread("spikingbrain parallel")

    /** [n] answers to each prompt, in the prompts' order; [onText] is called in the caller's coroutine; see [Parallel.generate]. */
    public suspend fun generate(
        prompts: List<String>,
        n: Int = 1,
        onText: (suspend (AnswerPiece) -> Unit)? = null,
        configure: GenerateScope.() -> Unit = {},
    ): List<Parallel.Answer> = told(onText, configure) { options, listener -> java.generate(prompts, options, n, listener) }

    /** An answer to each chat; see [Parallel.chat]. */
    public suspend fun chat(
        chats: List<List<ChatMessage>>,
        onText: (suspend (AnswerPiece) -> Unit)? = null,
        configure: GenerateScope.() -> Unit = {},
    ): List<Parallel.Answer> = told(onText, configure) { options, listener -> java.chat(chats, options, listener) }

    private suspend fun told(
        onText: (suspend (AnswerPiece) -> Unit)?,
        configure: GenerateScope.() -> Unit,
        run: (GenerateOptions, Parallel.Listener?) -> List<Parallel.Answer>,
    ): List<Parallel.Answer> {
        val options = GenerateScope().apply(configure).build()
        return reporting(onText, Channel.UNLIMITED) { report ->
            thread.call(java::cancel) { run(options, report?.let(::Listener)) }
        }
    }

    /** Ends what is under way, waits for it, frees the memory. Calling it again is harmless. */
    override fun close() {
        java.close()
        thread.close()
        model.forget(this)
    }

    /** The same without blocking the caller's thread. */
    public suspend fun closeAndJoin(): Unit = withContext(NonCancellable + Dispatchers.IO) { close() }
}

/** A piece of the answer of this number in the list that the call returns. */
public data class AnswerPiece(val answer: Int, val text: String)

private class Listener(private val report: (AnswerPiece) -> Unit) : Parallel.Listener {
    override fun onText(answer: Int, piece: String) = report(AnswerPiece(answer, piece))

    override fun onEnd(answer: Parallel.Answer) = Unit
}
