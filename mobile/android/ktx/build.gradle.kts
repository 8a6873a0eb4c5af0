// The AAR of org.spikingbrain.ktx: the library for coroutines. The plugin compiles Kotlin by itself since its version 9.
plugins {
    alias(libs.plugins.android.library)
    `maven-publish`
}

android {
    namespace = "org.spikingbrain.ktx"
    compileSdk = libs.versions.compileSdk.get().toInt()

    defaultConfig {
        minSdk = libs.versions.minSdk.get().toInt()
    }

    compileOptions { // Kotlin's target, too
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }

    publishing {
        singleVariant("release") {
            withSourcesJar()
        }
    }
}

kotlin {
    explicitApi()
    compilerOptions {
        allWarningsAsErrors = true
    }
}

dependencies {
    api(project(":library"))
    api(libs.kotlinx.coroutines.core)
}

publishing {
    publications {
        register<MavenPublication>("release") {
            artifactId = "spikingbrain-ktx"
            pom {
                name = "SpikingBrain for Android, Kotlin"
                description = "SpikingBrain language models for coroutines: suspend, Flow, options as a DSL"
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
