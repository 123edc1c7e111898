// Written by edgeml: the operators of the model, and no others.
#ifndef EDGEML_MICRO_OPS_H_
#define EDGEML_MICRO_OPS_H_

#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

constexpr int kModelOperators = 5;
using ModelOpResolver = tflite::MicroMutableOpResolver<kModelOperators>;

inline TfLiteStatus AddModelOperators(ModelOpResolver& resolver) {
  if (resolver.AddConv2D() != kTfLiteOk) return kTfLiteError;
  if (resolver.AddDepthwiseConv2D() != kTfLiteOk) return kTfLiteError;
  if (resolver.AddFullyConnected() != kTfLiteOk) return kTfLiteError;
  if (resolver.AddMean() != kTfLiteOk) return kTfLiteError;
  if (resolver.AddSoftmax() != kTfLiteOk) return kTfLiteError;
  return kTfLiteOk;
}

#endif  // EDGEML_MICRO_OPS_H_
