// A perceptron with one hidden layer whose gradients are computed by plain
// loops, in C: an engine of somebody's own.

#ifndef GRAPNEL_TESTS_CAPI_RUNS_MLP_H_
#define GRAPNEL_TESTS_CAPI_RUNS_MLP_H_

#include <stddef.h>
#include <stdint.h>

#include "grapnel/tests/capi/runs/text.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { mlp_inputs = 3, mlp_hidden = 5, mlp_outputs = 2 };

// Row-major: hidden = tanh(input w1^T + b1), output = hidden w2^T + b2.
typedef struct mlp_weights {
  double w1[mlp_hidden * mlp_inputs];
  double b1[mlp_hidden];
  double w2[mlp_outputs * mlp_hidden];
  double b2[mlp_outputs];
} mlp_weights;

// Its tensors, in their order. Offsets and numbers of elements are in doubles;
// cols is 0 for a vector.
typedef struct mlp_part {
  const char* name;
  size_t offset;
  int64_t rows, cols;
} mlp_part;
enum { mlp_num_parts = 4 };
extern const mlp_part mlp_parts[mlp_num_parts];

// What training begins with.
void mlp_initialize(mlp_weights* weights);

// (n, mlp_outputs) outputs for (n, mlp_inputs) inputs.
void mlp_forward(const mlp_weights* weights, const double* inputs, int64_t n,
                 double* outputs);

// Returns the mean of (output - target)^2 over all outputs of all samples, and
// sets `*gradients` to its gradients.
double mlp_gradients(const mlp_weights* weights, const double* inputs,
                     const double* targets, int64_t n, mlp_weights* gradients);

// A sample by its position.
enum { mlp_samples = 40 };
void mlp_sample(int64_t index, double* input, double* target);

// What is trained, as text; without work_dir.
extern const char mlp_config[];

// Zero-initialize before, clear its text after use.
typedef struct mlp_outcome {
  text error;           // What an API call failed with; empty if none did.
  mlp_weights weights;  // As trained.
  double val_loss;      // Of a validation at the end, by the average.
  int copies;           // How often the engine took the library's weights.
  int exported;         // Whether it was told to export to "/net".
  int destroyed;
} mlp_outcome;

// Trains by the C API. `steps` of a runner that is dropped then, if >= 0, and
// the rest by one that resumes; else all at once.
void mlp_train(const char* work_dir, int64_t steps, mlp_outcome* outcome);

#ifdef __cplusplus
}  // extern "C"
#endif

#endif  // GRAPNEL_TESTS_CAPI_RUNS_MLP_H_
