// The sample app.
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
    ndkVersion = libs.versions.ndk.get() // strips the libraries

    defaultConfig {
        applicationId = "org.spikingbrain.app"
        minSdk = libs.versions.minSdk.get().toInt()
        targetSdk = libs.versions.targetSdk.get().toInt()
        versionCode = 1
        versionName = project.version.toString()
        buildConfigField("String", "PIN", "\"${pin.get()}\"")
        buildConfigField("String", "COMMIT", "\"${commit.get()}\"")
    }

    buildFeatures {
        buildConfig = true
    }

    buildTypes {
        release { // shrunk by R8: the library's consumer rules keep what its native part finds by name
            isMinifyEnabled = true
            isShrinkResources = true
            proguardFiles(getDefaultProguardFile("proguard-android-optimize.txt"))
            signingConfig = signingConfigs.getByName("debug") // to try it on a phone; a shop wants a key of one's own
        }
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
