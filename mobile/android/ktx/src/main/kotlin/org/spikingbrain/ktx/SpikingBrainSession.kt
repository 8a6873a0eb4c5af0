package org.spikingbrain.ktx

import java.io.File
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.NonCancellable
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.flow
import kotlinx.coroutines.withContext
import org.spikingbrain.ChatMessage
import org.spikingbrain.Conversation
import org.spikingbrain.GenerateOptions
import org.spikingbrain.Generation
import org.spikingbrain.Progress
import org.spikingbrain.Session

/**
 * One sequence of a model, for coroutines. A coroutine that is cancelled cancels its own call, waits for its end, and leaves the session as
 * [Session.cancel] does: it can go on. Exceptions are those of the Java API, in the coroutine that called.
 */
public class SpikingBrainSession internal constructor(
    /** The session itself. */
    public val java: Session,
    private val model: SpikingBrainModel,
) : AutoCloseable {
    private val thread = NativeThread("spikingbrain session")

    /** The text that continues a prompt, in pieces, computed while it is collected; see [Session.generate]. */
    public fun generate(prompt: String, configure: AnswerScope.() -> Unit = {}): Flow<String> =
        pieces(configure) { options, progress -> java.generate(prompt, options, progress) }

    /** The same of token ids. */
    public fun generate(prompt: IntArray, configure: AnswerScope.() -> Unit = {}): Flow<String> =
        pieces(configure) { options, progress -> java.generate(prompt, options, progress) }

    /** The answer to a chat, in pieces, computed while it is collected; see [Session.chat]. */
    public fun chat(messages: List<ChatMessage>, configure: AnswerScope.() -> Unit = {}): Flow<String> =
        pieces(configure) { options, progress -> java.chat(messages, options, progress) }

    /** The answer to what a conversation was asked, which it keeps, in pieces, computed while it is collected; see [Conversation.answer]. */
    public fun chat(conversation: Conversation, configure: AnswerScope.() -> Unit = {}): Flow<String> =
        pieces(configure) { options, progress -> conversation.answer(java, options, progress) }

    private fun pieces(configure: AnswerScope.() -> Unit, begin: (GenerateOptions, Progress?) -> Generation): Flow<String> {
        val scope = AnswerScope().apply(configure)
        val options = scope.build()
        return flow {
            var answer: Generation? = null
            try {
                var piece = reporting(scope.onProgress) { report ->
                    val progress = report?.let { Progress { done, total -> it(PromptProgress(done, total)) } }
                    compute { begin(options, progress).also { answer = it }.nextOrNull() }
                }
                while (piece != null) {
                    emit(piece)
                    piece = compute { answer!!.nextOrNull() }
                }
            } finally {
                answer?.let { end(it, scope.onEnd) }
            }
        }
    }

    private suspend fun <T> compute(block: () -> T): T = thread.call(java::cancel, block)

    private suspend fun end(answer: Generation, onEnd: (Generation) -> Unit) {
        withContext(NonCancellable) { thread.call { answer.close() } }
        onEnd(answer)
    }

    /** Reads tokens; see [Session.eval]. */
    public suspend fun eval(tokens: IntArray, onProgress: (suspend (PromptProgress) -> Unit)? = null) {
        reporting(onProgress) { report ->
            compute { java.eval(tokens, report?.let { Progress { done, total -> it(PromptProgress(done, total)) } }) }
        }
    }

    /** Writes the sequence to a file, whole or not at all; see [Session.snapshot]. */
    public suspend fun snapshot(file: File): Unit = thread.call { java.snapshot(file) }

    /** Replaces the sequence by a snapshot's; see [Session.restore]. */
    public suspend fun restore(file: File): Unit = thread.call { java.restore(file) }

    /** Calls the Java API on the session's thread; a coroutine that is cancelled calls [Session.cancel]. */
    public suspend fun <T> call(block: (Session) -> T): T = compute { block(java) }

    /** Ends what is under way, waits for it, frees the memory. Calling it again is harmless. */
    override fun close() {
        java.close()
        thread.close()
        model.forget(this)
    }

    /** The same without blocking the caller's thread. */
    public suspend fun closeAndJoin(): Unit = withContext(NonCancellable + Dispatchers.IO) { close() }
}

private fun Generation.nextOrNull(): String? = if (hasNext()) next() else null
