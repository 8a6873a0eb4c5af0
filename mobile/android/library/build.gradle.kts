// The AAR: org.spikingbrain and its native libraries.
import com.android.build.api.artifact.SingleArtifact
import javax.inject.Inject

plugins {
    alias(libs.plugins.android.library)
    `maven-publish`
}

android {
    namespace = "org.spikingbrain"
    compileSdk = libs.versions.compileSdk.get().toInt()
    ndkVersion = libs.versions.ndk.get()

    defaultConfig {
        minSdk = libs.versions.minSdk.get().toInt()
        testInstrumentationRunner = "androidx.test.runner.AndroidJUnitRunner"
        consumerProguardFiles("consumer-rules.pro")
        ndk {
            abiFilters += listOf("arm64-v8a", "x86_64")
        }
        externalNativeBuild {
            cmake {
                // No `targets`: the plugin then packs every shared library and module of the build. With some it packs these and what they
                // link, and the CPU libraries are linked by nothing.
                arguments += listOf("-DANDROID_STL=c++_shared", "-DCMAKE_BUILD_TYPE=Release")
            }
        }
    }

    externalNativeBuild {
        cmake {
            path = file("src/main/cpp/CMakeLists.txt")
            version = libs.versions.cmake.get()
        }
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }

    packaging {
        jniLibs.useLegacyPackaging = true // of the tests' APK, as each app must set it: ggml opens its CPU libraries by path
    }

    publishing {
        singleVariant("release") {
            withSourcesJar()
        }
    }
}

dependencies {
    api(libs.jspecify) // @Nullable, for Kotlin and for checkers
    androidTestImplementation(libs.junit)
    androidTestImplementation(libs.androidx.test.runner)
}

// --- made by Python, as CMake's sources are: the licences of what is bundled, for the app's assets, and the tests' tiny model

val sources: Directory = rootProject.layout.projectDirectory.dir("../..")

/** Runs commands in the repository's folder; OUT stands for the folder that they fill. */
abstract class Made @Inject constructor(private val processes: ExecOperations) : DefaultTask() {
    @get:Input abstract val commands: ListProperty<List<String>>
    @get:InputFiles abstract val from: ConfigurableFileCollection
    @get:Internal abstract val folder: DirectoryProperty
    @get:OutputDirectory abstract val out: DirectoryProperty

    @TaskAction
    fun make() = commands.get().forEach { command ->
        processes.exec {
            workingDir(folder)
            commandLine(command.map { it.replace("OUT", out.get().asFile.path) })
        }
    }
}

val llama = layout.buildDirectory.dir("llama.cpp").get().asFile.path
val licenses = tasks.register<Made>("licenses") {
    folder = sources
    from.from(sources.file("LICENSE"), sources.file("cpp_backend/llama.lock"), sources.file("cpp_backend/licenses.py"), sources.file("cpp_backend/parts.py"), sources.file("cpp_backend/parts.json"))
    commands.add(listOf("python3", "cpp_backend/upstream.py", "--dest", llama))
    commands.add(listOf("python3", "cpp_backend/licenses.py", llama, "OUT/licenses/spikingbrain", "LICENSE"))
}
val tinyModel = tasks.register<Made>("tinyModel") { // with what `make build` leaves
    folder = sources
    from.from(sources.dir("examples/tiny"))
    commands.add(listOf(".venv/bin/sb-convert", "examples/tiny", "-o", "OUT/tiny.gguf", "--outtype", "f32", "--force"))
}

androidComponents.onVariants { variant ->
    variant.sources.assets?.addGeneratedSourceDirectory(licenses, Made::out)
    variant.deviceTests.values.forEach { it.sources.assets?.addGeneratedSourceDirectory(tinyModel, Made::out) }

    // what was packed is looked into: `gradle checkReleasePackage`, a part of `gradle check`
    val aar = variant.artifacts.get(SingleArtifact.AAR)
    val check = tasks.register<Exec>("check${variant.name.replaceFirstChar { it.uppercase() }}Package") {
        inputs.file(aar)
        commandLine("python3", sources.file("mobile/android/pack").asFile.path, "check")
        argumentProviders.add(CommandLineArgumentProvider { listOf(aar.get().asFile.path) })
    }
    tasks.named("check") { dependsOn(check) }
}

publishing {
    publications {
        register<MavenPublication>("release") {
            artifactId = "spikingbrain"
            pom {
                name = "SpikingBrain for Android"
                description = "SpikingBrain language models on CPUs: Java API and native libraries"
                licenses {
                    license {
                        name = "MIT"
                        url = "https://opensource.org/license/mit"
                    }
                }
            }
            afterEvaluate { from(components["release"]) }
        }
    }
}
