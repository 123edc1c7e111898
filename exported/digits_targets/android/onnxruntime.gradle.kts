// Into the module's build.gradle.kts; model.onnx goes to src/main/assets/.
dependencies { implementation("com.microsoft.onnxruntime:onnxruntime-android:1.30.0") }
