package org.spikingbrain.ktx.cases

import java.io.File
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.collect
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.toList
import org.spikingbrain.ktx.AnswerScope
import org.spikingbrain.ktx.ModelScope
import org.spikingbrain.ktx.SessionScope
import org.spikingbrain.ktx.spikingBrain

/** model, file that is none: what fails in the Java API fails so here, in the coroutine that called. */
internal suspend fun errors(file: String, damaged: String) {
    say("missing", failure { spikingBrain(File("/nowhere.gguf")) })
    say("damaged", failure { spikingBrain(File(damaged)) })
    spikingBrain(File(file)).use { model ->
        model.session { SMALL(); nCtx = 64 }.use { session ->
            say("empty", failure { session.generate(IntArray(0)).collect() })
            say("long", failure { session.generate(IntArray(100)).collect() })
            say("chat", failure { session.chat(emptyList()).collect() })
            say("eval", failure { session.eval(intArrayOf(-1)) })
            say("restore", failure { session.restore(File(damaged)) })
            say("changed", failure { session.generate(PROMPT, GREEDY).collect { session.eval(intArrayOf(1)) } })
            say("downstream", failure { session.generate(PROMPT, GREEDY).collect { error("not this") } })
            say("progress", failure { session.call { it.reset() }.let { session.eval(IntArray(40)) { error("nor this") } } })
            say("usable", session.generate("a", GREEDY).first().isNotEmpty())
        }
    }
    say("leaked", leaked() + if (mapped(file)) listOf(file) else emptyList())
}

/** model: what an option does not allow is refused, by name, where it is given; nothing is collected for that. */
internal suspend fun options(file: String) {
    suspend fun load(configure: ModelScope.() -> Unit) = say("model", failure { spikingBrain(File(file), configure).close() })
    load { spikeK = -1f }
    load { spikeK = 2f; spike = false }
    spikingBrain(File(file)).use { model ->
        suspend fun session(configure: SessionScope.() -> Unit) = say("session", failure { model.session(configure).close() })
        session { nCtx = -1 }
        session { nThreads = 1000 }
        session { nUbatch = 0 }
        session { cpus = listOf(-1) }
        model.session(SMALL).use { session ->
            fun generate(configure: AnswerScope.() -> Unit) = say("generate", failure { session.generate(PROMPT, configure) })
            generate { maxTokens = -1 }
            generate { temperature = Float.NaN }
            generate { topP = 1.1f }
            generate { minP = -0.1f }
            generate { repeatPenalty = 0f }
            generate { seed = -2 }
            generate { stop = listOf("") }
            generate { typicalP = 2f }
            generate { frequencyPenalty = Float.NaN }
            generate { presencePenalty = Float.POSITIVE_INFINITY }
            generate { logitBias = mapOf(1 to Float.NaN) }
            generate { logprobs = 21 }
        }
    }
}

/** model: closed while it answers; asked afterwards; no thread and no memory is left. */
internal suspend fun closing(file: String) {
    val model = spikingBrain(File(file))
    val session = model.session(SMALL)
    coroutineScope {
        val answer = async(Dispatchers.Default) { failure { session.generate(PROMPT) { maxTokens = 100_000; temperature = 0f }.collect() } }
        delay(200)
        session.closeAndJoin()
        say("collector", answer.await())
    }
    say("session", failure { session.eval(intArrayOf(1)) })
    say("flow", failure { session.generate(PROMPT, GREEDY).toList() })
    session.close()
    val other = model.session(SMALL)
    model.closeAndJoin()
    model.close()
    say("model", failure { model.session() })
    say("other", failure { other.call { it.nTokens() } })
    say("leaked", leaked() + if (mapped(file)) listOf(file) else emptyList())
    say("forgotten", failure { spikingBrain(File(file)).session(SMALL) }) // its threads do not hold up the end of the process
}
