// The sample app. Not yet run: no NDK and no android.jar where this was written.
plugins {
    alias(libs.plugins.android.application)
}

/** What the rows of a benchmark say of the sources. */
val commit = providers.exec {
    commandLine("git", "rev-parse", "--short=12", "HEAD")
    isIgnoreExitValue = true // sources without a repository: empty
}.standardOutput.asText.map { it.trim() }
val pin = providers.fileContents(rootProject.layout.projectDirectory.file("../../cpp_backend/llama.lock")).asText
    .map { Regex("(?m)^[\\w-]+==[\\w.]+").find(it)!!.value }

android {
    namespace = "org.spikingbrain.app"
    compileSdk = libs.versions.compileSdk.get().toInt()

    defaultConfig {
        applicationId = "org.spikingbrain.app"
        minSdk = libs.versions.minSdk.get().toInt()
        targetSdk = libs.versions.compileSdk.get().toInt()
        versionCode = 1
        versionName = "0.1.0"
        buildConfigField("String", "PIN", "\"${pin.get()}\"")
        buildConfigField("String", "COMMIT", "\"${commit.get()}\"")
    }

    buildFeatures {
        buildConfig = true
    }

    packaging {
        jniLibs.useLegacyPackaging = true // ggml opens its CPU libraries by path
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }
}

dependencies {
    implementation(project(":library"))
}
