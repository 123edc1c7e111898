// What an ONNX file of this bundle makes of raw numbers, 64 per sample, parted by commas or white space:
// label and probability, one line each.
//
//     ./classify model.onnx < numbers.csv
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <iostream>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

const std::array<std::string, 10> kLabels = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"};
const std::vector<int64_t> kShape = {1, 8, 8, 1};
constexpr size_t kSize = 64;  // numbers of one sample
using Input = float;
using Output = float;

Input ToModel(float x) {
  return static_cast<Input>(x);
}

float FromModel(Output y) {
  return static_cast<float>(y);
}

// Reads one sample; false at the end of the input.
bool Read(std::istream& in, std::vector<float>& sample) {
  for (size_t i = 0; i < kSize; ++i) {
    if (!(in >> sample[i])) {
      if (i == 0 && in.eof()) return false;
      throw std::runtime_error("not a number, or not 64 of them in the last sample");
    }
    if ((in >> std::ws).peek() == ',') in.get();
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string path = argc > 1 ? argv[1] : "model.onnx";
  Ort::Env env;
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(1);
  try {
    Ort::Session session(env, std::basic_string<ORTCHAR_T>(path.begin(), path.end()).c_str(), options);
    const char* const inputs[] = {"image"};
    const char* const outputs[] = {"probabilities"};
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    std::vector<float> sample(kSize);
    std::vector<Input> x(kSize * kShape[0]);
    while (Read(std::cin, sample)) {
      std::transform(sample.begin(), sample.end(), x.begin(), ToModel);
      Ort::Value value = Ort::Value::CreateTensor<Input>(memory, x.data(), x.size(), kShape.data(), kShape.size());
      const auto found = session.Run(Ort::RunOptions{}, inputs, &value, 1, outputs, 1);
      const Output* y = found[0].GetTensorData<Output>();
      const size_t best = std::max_element(y, y + kLabels.size()) - y;
      std::cout << kLabels[best] << "  " << FromModel(y[best]) << "\n";
    }
  } catch (const std::exception& error) {
    std::cerr << path << ": " << error.what() << "\n";
    return 1;
  }
  return 0;
}
