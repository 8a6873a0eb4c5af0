package org.spikingbrain.ktx.cases

import java.io.File
import org.spikingbrain.ChatMessage
import org.spikingbrain.GenerateOptions
import org.spikingbrain.Generation
import org.spikingbrain.ModelOptions
import org.spikingbrain.Session
import org.spikingbrain.SpikingBrain
import org.spikingbrain.Tool
import org.spikingbrain.ktx.SpikingBrainSession

/** Each line that says so must be refused by the compiler, no other. */
internal fun nullable(model: SpikingBrain, session: Session, answer: Generation, message: ChatMessage, text: String?) {
    println(model.spikeScope()?.length)
    println(model.spikeScope().length) // wrong
    val reason: Generation.FinishReason? = answer.finishReason()
    val ended: Generation.FinishReason = answer.finishReason() // wrong
    val said: String = answer.text() + message.content + model.description()
    val thought: String = message.reasoning // wrong
    session.generate("", GenerateOptions(), null)
    session.generate(text, GenerateOptions(), null) // wrong
    session.chat(listOf(message), null, null) // wrong
    session.chat(listOf(message, null), GenerateOptions(), null) // wrong
    session.snapshot(null) // wrong
    model.tokenize(text, true, true) // wrong
    ModelOptions().spike(null).spikeK(null).checkMemory(true)
    GenerateOptions().grammar(null).stop("a")
    GenerateOptions().stop(text) // wrong
    GenerateOptions().logitBias(mapOf(1 to null)) // wrong
    Tool("now", null, null)
    Tool(text, null, null) // wrong
    println(listOf(reason, ended, said, thought, File("")))
}

/** The scope of an answer is not that of a model inside it. */
internal fun scopes(session: SpikingBrainSession) {
    session.generate("") { maxTokens = 1 }
    session.generate("") { nCtx = 1 } // wrong
    session.generate("") { temperature = "hot" } // wrong
    session.generate("") { build() } // wrong
}
