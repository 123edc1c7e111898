// Written by edgeml. The int8 TFLite file of this bundle as an array, and what it needs.
#ifndef EDGEML_MODEL_DATA_H_
#define EDGEML_MODEL_DATA_H_

constexpr int kModelBytes = 9362;
// The least with which tflite-micro opens the model on a 64-bit machine, with reference kernels.
constexpr int kTensorArenaBytes = 5376;
// CMSIS-NN's convolutions ask for about so much beside it (by its documentation, not measured).
constexpr int kCmsisNnScratchBytes = 36;

extern const unsigned char model_data[kModelBytes];

#endif  // EDGEML_MODEL_DATA_H_
