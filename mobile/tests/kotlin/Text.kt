package org.spikingbrain.ktx.cases

import java.io.File
import kotlinx.coroutines.asCoroutineDispatcher
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.onEach
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.withContext
import org.spikingbrain.ChatMessage
import org.spikingbrain.Conversation
import org.spikingbrain.GenerateOptions
import org.spikingbrain.Generation
import org.spikingbrain.Grammar
import org.spikingbrain.ModelOptions
import org.spikingbrain.SessionOptions
import org.spikingbrain.SpikingBrain
import org.spikingbrain.Tool
import org.spikingbrain.ToolChoice
import org.spikingbrain.ktx.AnswerScope
import org.spikingbrain.ktx.PromptProgress
import org.spikingbrain.ktx.SessionScope
import org.spikingbrain.ktx.spikingBrain
import java.util.concurrent.Executors

internal const val PROMPT = "the cat sat on the mat and said hello to all of them, café naïve 日本語 🙂"
internal val SMALL: SessionScope.() -> Unit = { nThreads = 1; nUbatch = 32 } // ggml's barriers spin: one thread
internal val GREEDY: AnswerScope.() -> Unit = { maxTokens = 24; temperature = 0f }

/** The pieces of the Java API itself. */
internal fun javaPieces(file: String, options: GenerateOptions): List<String> =
    SpikingBrain.load(File(file), ModelOptions()).use { model ->
        model.newSession(SessionOptions().nThreads(1).nUbatch(32)).use { it.generate(PROMPT, options, null).asSequence().toList() }
    }

/** model: a flow has the pieces of the Java API, each time it is collected. */
internal suspend fun text(file: String) = spikingBrain(File(file)).use { model ->
    model.session(SMALL).use { session ->
        val greedy = session.generate(PROMPT, GREEDY)
        say("greedy", greedy.toList() == javaPieces(file, GenerateOptions().maxTokens(24).temperature(0.0)))
        say("again", greedy.toList() == greedy.toList())
        val drawn = session.generate(model.java.tokenize(PROMPT, true, true)) {
            maxTokens = 40
            temperature = 1.1f
            topK = 0
            topP = 0.9f
            minP = 0.02f
            repeatPenalty = 1.2f
            seed = 7
            stop = listOf("never said")
        }
        val java = GenerateOptions().maxTokens(40).temperature(1.1).topK(0).topP(0.9).minP(0.02).repeatPenalty(1.2).seed(7).stop("never said")
        say("drawn", drawn.toList() == javaPieces(file, java))
        session.eval(intArrayOf(1, 2, 3))
        say("tokens", session.call { it.tokens() }.takeLast(3))
    }
}

/** model: a chat that grows evaluates its new tokens only, also in a new session from a snapshot. */
internal suspend fun chat(file: String) = spikingBrain(File(file)).use { model ->
    val messages = mutableListOf(ChatMessage("user", "say hello"))
    val snapshot = File.createTempFile("chat", ".snapshot")
    model.session(SMALL).use { session ->
        repeat(2) {
            val pieces = session.chat(messages) {
                GREEDY()
                onEnd { answer ->
                    say("counts", intArrayOf(answer.timings().nPrompt, answer.timings().nPromptEvaluated, answer.timings().nGenerated))
                    say("text", answer.text())
                    messages += ChatMessage("assistant", answer.text())
                }
            }.toList()
            say("pieces", pieces.joinToString(""))
            messages += ChatMessage("user", "and again")
        }
        session.snapshot(snapshot)
    }
    model.session(SMALL).use { session ->
        session.restore(snapshot)
        say("restored", session.call { it.nTokens() } > 0)
    }
}

/** model: grammar, penalties, biases, log probabilities do what Java's do. */
internal suspend fun constrained(file: String) = spikingBrain(File(file)).use { model ->
    model.session(SMALL).use { session ->
        val answer = session.generate(PROMPT) { GREEDY(); grammar = Grammar.gbnf("root ::= \"yes\" | \"no\"") }
        say("grammar", answer.toList().joinToString(""))
        var ended: Generation? = null
        session.generate(PROMPT) { GREEDY(); logprobs = 3; onEnd { ended = it } }.toList()
        say("logprobs", checkNotNull(ended).let { end -> end.logprobs().size == end.tokens().size && end.logprobs().all { it.top.size == 3 } })
        val drawn = session.generate(PROMPT) {
            GREEDY()
            typicalP = 0.9f
            frequencyPenalty = 0.5f
            presencePenalty = 0.25f
            logitBias = mapOf(7 to -1f, 8 to Float.NEGATIVE_INFINITY)
            seed = 3
        }
        val java = GenerateOptions().maxTokens(24).temperature(0.0).typicalP(0.9).frequencyPenalty(0.5).presencePenalty(0.25)
            .logitBias(mapOf(7 to -1.0, 8 to Double.NEGATIVE_INFINITY)).seed(3)
        say("drawn", drawn.toList() == javaPieces(file, java))
        val tool = Tool("now", null, null)
        say("tools", failure { session.generate(PROMPT) { tools = listOf(tool); toolChoice = ToolChoice.REQUIRED }.toList() })
    }
}

/** model: a conversation keeps the answers, also the one that was cancelled, and goes on from its tokens. */
internal suspend fun conversation(file: String) = spikingBrain(File(file)).use { model ->
    model.session(SMALL).use { session ->
        val chat = Conversation()
        repeat(2) {
            chat.ask("say hello")
            val pieces = session.chat(chat) { GREEDY(); onEnd { say("evaluated", it.timings().nPromptEvaluated) } }.toList()
            say("kept", chat.messages().last().content == pieces.joinToString(""))
        }
        chat.ask("and more")
        say("first", session.chat(chat) { temperature = 0f; maxTokens = 1000 }.first().isNotEmpty()) // first() cancels the rest
        say("roles", chat.messages().map { it.role })
    }
}

/** model: what is called back runs where the caller collects, the native calls on their own threads. */
internal suspend fun callbacks(file: String) = Executors.newSingleThreadExecutor { Thread(it, "main") }.asCoroutineDispatcher().use { main ->
    withContext(main) {
        val threads = mutableSetOf<String>()
        fun note() = threads.add(Thread.currentThread().name.substringBefore(" @"))
        spikingBrain(File(file)).use { model ->
            model.session(SMALL).use { session ->
                val told = mutableListOf<PromptProgress>()
                var ended: Generation? = null
                session.generate(IntArray(300) { it % 250 }) {
                    maxTokens = 5
                    onProgress { note(); told += it }
                    onEnd { note(); ended = it }
                }.onEach { note() }.toList()
                session.eval(IntArray(100) { it }) { note(); told += it }
                say("last", listOf(told.first { it.done == it.total }.total, told.last().done))
                say("rising", told.zipWithNext().all { (a, b) -> a.total != b.total || a.done <= b.done })
                say("reason", ended!!.finishReason())
                say("native", listOf(session.call { Thread.currentThread().name }, model.call { Thread.currentThread().name }))
            }
        }
        say("threads", threads)
    }
}
