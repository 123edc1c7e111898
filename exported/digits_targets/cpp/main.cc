// What an ONNX file of this bundle makes of raw numbers, 64 per sample, parted by commas or white space:
// label and probability, one line each.
//
//     ./classify [MODEL] < numbers.csv
//
// MODEL: ../model.onnx, the default; ../model_int8.onnx
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <iostream>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace {

const std::array<std::string, 10> kLabels = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"};
constexpr size_t kSize = 64;  // numbers of one sample

// Integers are round(x / scale) + zero; scale 1 and zero 0 leave a number as it is.
struct Steps {
  double scale;
  int zero;
};

template <typename Input>
Input ToModel(double x, Steps steps) {
  if constexpr (std::is_integral_v<Input>) {
    x = std::nearbyint(x / steps.scale) + steps.zero;
    x = std::clamp<double>(x, std::numeric_limits<Input>::min(), std::numeric_limits<Input>::max());
  }
  return static_cast<Input>(x);
}

// Reads one sample; false at the end of the input.
bool Read(std::istream& in, std::vector<double>& sample) {
  for (size_t i = 0; i < kSize; ++i) {
    if (!(in >> sample[i])) {
      if (i == 0 && in.eof()) return false;
      throw std::runtime_error("not a number, or not 64 of them in the last sample");
    }
    if ((in >> std::ws).peek() == ',') in.get();
  }
  return true;
}

template <typename Input, typename Output>
void Classify(const std::string& path, const std::vector<int64_t>& shape, Steps taken, Steps given) {
  Ort::Env env;
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(1);
  Ort::Session session(env, std::basic_string<ORTCHAR_T>(path.begin(), path.end()).c_str(), options);
  const char* const inputs[] = {"image"};
  const char* const outputs[] = {"probabilities"};
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const auto real = [given](Output y) { return static_cast<float>((y - given.zero) * given.scale); };
  std::vector<double> sample(kSize);
  std::vector<Input> x(kSize * shape[0]);
  bool is_empty = true;
  for (; Read(std::cin, sample); is_empty = false) {
    std::transform(sample.begin(), sample.end(), x.begin(), [taken](double one) { return ToModel<Input>(one, taken); });
    Ort::Value value = Ort::Value::CreateTensor<Input>(memory, x.data(), x.size(), shape.data(), shape.size());
    const auto found = session.Run(Ort::RunOptions{}, inputs, &value, 1, outputs, 1);
    const Output* y = found[0].GetTensorData<Output>();
    const size_t best = std::max_element(y, y + kLabels.size()) - y;
    std::cout << kLabels[best] << "  " << real(y[best]) << "\n";
  }
  if (is_empty) throw std::runtime_error("no numbers came in; 64 per sample are due");
}

}  // namespace

int main(int argc, char** argv) {
  const std::string path = argc > 1 ? argv[1] : "../model.onnx";
  const std::string name = path.substr(path.find_last_of("/\\") + 1);
  try {
    if (name == "model.onnx") {
      Classify<float, float>(path, {1, 8, 8, 1}, {1.0, 0}, {1.0, 0});
    } else if (name == "model_int8.onnx") {
      Classify<uint8_t, float>(path, {1, 8, 8, 1}, {0.062745101749897, 0}, {1.0, 0});
    } else {
      throw std::runtime_error("not a file of this program; model.onnx, model_int8.onnx are");
    }
  } catch (const std::exception& error) {
    std::cerr << path << ": " << error.what() << "\n";
    return 1;
  }
  return 0;
}
