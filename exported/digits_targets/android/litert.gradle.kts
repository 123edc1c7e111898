// Into the module's build.gradle.kts; model.tflite goes to src/main/assets/, not compressed.
// minSdk 24. Interpreter is in LiteRT 1 and from 2.1 on, not in 2.0; it runs on the CPU.
android { androidResources { noCompress += "tflite" } }
dependencies { implementation("com.google.ai.edge.litert:litert:2.3.2") }
