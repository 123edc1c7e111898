// Written by edgeml: runs the golden inputs on a tree of TensorFlow Lite Micro. Exit code 0: they agree.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "golden_data.h"
#include "micro_ops.h"
#include "model_data.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_log.h"
#include "tensorflow/lite/micro/system_setup.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {

alignas(16) uint8_t tensor_arena[kTensorArenaBytes + kCmsisNnScratchBytes];

template <typename T, int N>
int Steps(const T (&expected)[N], const TfLiteTensor* tensor, float step) {
  const T* found = reinterpret_cast<const T*>(tensor->data.raw);
  float most = 0.0f;
  for (int i = 0; i < N; ++i) {
    most = std::fmax(most, std::fabs(static_cast<float>(found[i]) - static_cast<float>(expected[i])) / step);
  }
  return static_cast<int>(most + 0.5f);
}

}  // namespace

int main() {
  tflite::InitializeTarget();
  ModelOpResolver resolver;
  if (AddModelOperators(resolver) != kTfLiteOk) return 1;
  tflite::MicroInterpreter interpreter(tflite::GetModel(model_data), resolver, tensor_arena, sizeof(tensor_arena));
  if (interpreter.AllocateTensors() != kTfLiteOk) return 1;
  int most = 0;
  for (int row = 0; row < kGoldenRows; ++row) {
    std::memcpy(interpreter.input(0)->data.raw, golden_input_0[row], sizeof(golden_input_0[row]));
    if (interpreter.Invoke() != kTfLiteOk) return 1;
    most = std::max(most, Steps(golden_output_0[row], interpreter.output(0), 1.0f));
  }
  MicroPrintf("%s: %d rows, at most %d steps off, arena %d bytes", most <= 4 ? "ok" : "FAILED", kGoldenRows,
              most, static_cast<int>(interpreter.arena_used_bytes()));
  return most <= 4 ? 0 : 1;
}
