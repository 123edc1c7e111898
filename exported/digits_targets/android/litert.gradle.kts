// Into the module's build.gradle.kts; model.tflite goes to src/main/assets/, not compressed.
android { androidResources { noCompress += "tflite" } }
dependencies { implementation("com.google.ai.edge.litert:litert:1.4.0") }
