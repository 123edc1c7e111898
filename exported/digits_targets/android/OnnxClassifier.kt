// Written for onnxruntime on Android, not run by us.
import android.graphics.Bitmap
import android.graphics.Canvas
import android.graphics.Color
import android.media.ThumbnailUtils
import ai.onnxruntime.OnnxJavaType
import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import android.content.Context
import java.nio.ByteBuffer
import java.nio.ByteOrder

private val LABELS = listOf("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
private const val SIZE = 64 // numbers of one sample
private const val BATCH = 1 // a batch above one is filled with the one sample

/** What the model takes of a picture, laid on white but not turned (turn it upright first): black is 0.0, white 16.0. */
private fun values(bitmap: Bitmap): FloatArray {
    val opaque = Bitmap.createBitmap(bitmap.width, bitmap.height, Bitmap.Config.ARGB_8888)
    Canvas(opaque).apply { drawColor(Color.WHITE) }.drawBitmap(bitmap, 0f, 0f, null)
    val seen = ThumbnailUtils.extractThumbnail(opaque, 8, 8) // the centre
    val values = FloatArray(SIZE)
    for (y in 0 until 8) for (x in 0 until 8) {
        val p = seen.getPixel(x, y)
        val channels = intArrayOf((19595 * Color.red(p) + 38470 * Color.green(p) + 7471 * Color.blue(p) + 32768) shr 16)
        channels.forEachIndexed { c, v ->
            val place = (y * 8 + x) * 1 + c
            values[place] = v / 255f * 16.0f + 0.0f
        }
    }
    return values
}

/** Raw numbers as the file's bytes. */
private fun bytes(values: FloatArray): ByteBuffer {
    val buffer = ByteBuffer.allocateDirect(BATCH * SIZE * 4).order(ByteOrder.nativeOrder())
    repeat(BATCH) {
        values.forEachIndexed { i, raw ->
            val x = raw.toDouble()
            buffer.putFloat(x.toFloat())
        }
    }
    buffer.rewind()
    return buffer
}

/** The file's bytes as real numbers, of the first sample. */
private fun reals(buffer: ByteBuffer, count: Int): FloatArray {
    buffer.rewind()
    return FloatArray(count) { buffer.getFloat().toFloat() }
}

class OnnxClassifier(context: Context) : AutoCloseable {
    private val environment = OrtEnvironment.getEnvironment()
    private val session = environment.createSession(context.assets.open("model.onnx").use { it.readBytes() })

    fun classify(bitmap: Bitmap) = classify(values(bitmap))

    /** Label and probability of one sample of raw numbers. */
    fun classify(values: FloatArray): Pair<String, Float> {
        val shape = longArrayOf(1, 8, 8, 1)
        val type = OnnxJavaType.FLOAT
        OnnxTensor.createTensor(environment, bytes(values), shape, type).use { tensor ->
            session.run(mapOf("image" to tensor), setOf("probabilities")).use { found ->
                val buffer = (found[0] as OnnxTensor).byteBuffer.order(ByteOrder.nativeOrder())
                val reals = reals(buffer, buffer.remaining() / 4 / BATCH)
                val best = reals.indices.maxByOrNull { reals[it] }!!
                return LABELS[best] to reals[best]
            }
        }
    }

    override fun close() = session.close()
}
