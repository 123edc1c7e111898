/* Written by edgeml: the network of model.c, batch included in the sizes. */
#ifndef EDGEML_MODEL_H
#define EDGEML_MODEL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

void model(const float image[1][8][8][1], float probabilities[1][10]);

#ifdef __cplusplus
}
#endif

#endif
