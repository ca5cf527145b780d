// Fits a line to points in memory: a whole program as a user of a prefix writes
// it.
//
//   fit_line WORK_DIR
//
// Prints the library's version and the last loss; exits with 0 if the line
// fits.

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "grapnel/grapnel.h"

#define TEXT(string) (string), strlen(string)

enum { kPoints = 64 };

static const char kConfig[] =
    "model { sequential {"
    "  layers { linear { out_features: 1 } }"
    "  loss { mse {} }"
    "} }"
    "train_dataloader { batch_size: 16 sampler { shuffle: true } }"
    "train_cfg { max_epochs: 50 }"
    "optim_wrapper { optimizer { sgd { lr: 0.1 } } }"
    "randomness { seed: 0 }";

// y = 2 x + 1, x from 0 to 1.
static grapnel_status* add_points(grapnel_tensors* points) {
  const int64_t shape[] = {kPoints, 1};
  float x[kPoints];
  float y[kPoints];
  for (int i = 0; i < kPoints; ++i) {
    x[i] = (float)i / (kPoints - 1);
    y[i] = 2 * x[i] + 1;
  }
  grapnel_status* status = grapnel_tensors_add_copy(
      points, TEXT("input"), GRAPNEL_FLOAT32, shape, 2, x, sizeof(x));
  if (status != NULL) return status;
  return grapnel_tensors_add_copy(points, TEXT("target"), GRAPNEL_FLOAT32,
                                  shape, 2, y, sizeof(y));
}

static grapnel_status* set_options(grapnel_runner_options* options,
                                   const char* work_dir) {
  char assignment[4096];
  snprintf(assignment, sizeof(assignment), "work_dir=%s", work_dir);
  grapnel_tensors* points = NULL;
  grapnel_status* status =
      grapnel_runner_options_set_config(options, TEXT(kConfig), GRAPNEL_TEXT);
  if (status == NULL) {
    status = grapnel_runner_options_override(options, TEXT(assignment));
  }
  if (status == NULL) status = grapnel_tensors_create(&points);
  if (status == NULL) status = add_points(points);
  if (status == NULL) {
    status = grapnel_runner_options_set_tensors(options, GRAPNEL_TRAIN, points);
  }
  grapnel_tensors_destroy(points);
  return status;
}

static grapnel_status* fit(const char* work_dir, double* loss) {
  grapnel_runner_options* options = NULL;
  grapnel_runner* runner = NULL;
  grapnel_status* status = grapnel_runner_options_create(&options);
  if (status == NULL) status = set_options(options, work_dir);
  if (status == NULL) status = grapnel_runner_create(options, &runner);
  grapnel_runner_options_destroy(options);
  if (status == NULL) status = grapnel_runner_train(runner);
  if (status == NULL) {
    status = grapnel_runner_scalar(runner, TEXT("train/loss"), loss);
  }
  grapnel_runner_destroy(runner);
  return status;
}

int main(int argc, char** argv) {
  if (argc != 2) {
    fputs("usage: fit_line WORK_DIR\n", stderr);
    return 2;
  }
  double loss = 1;
  grapnel_status* const status = fit(argv[1], &loss);
  if (status != NULL) {
    fprintf(stderr, "fit_line: %s\n", grapnel_status_message(status));
    grapnel_status_destroy(status);
    return 1;
  }
  printf("%s\nloss %.6f\n", grapnel_build_info(), loss);
  return loss < 0.01 && grapnel_live_objects() == 0 ? 0 : 1;
}
