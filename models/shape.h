// Shapes in messages.

#ifndef GRAPNEL_MODELS_SHAPE_H_
#define GRAPNEL_MODELS_SHAPE_H_

#include <string>

#include "ATen/core/Tensor.h"

namespace grapnel {

// "(32, 4, 4)", as Python prints a tuple: "(10,)", "()".
std::string ShapeString(at::IntArrayRef shape);

}  // namespace grapnel

#endif  // GRAPNEL_MODELS_SHAPE_H_
