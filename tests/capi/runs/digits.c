// Trains the digits: DATA_DIR WORK_DIR STEPS RESUME OUT, as digits_plan has
// them. What there is in the end is in OUT.trace, OUT.weights and OUT.metrics.

#include <stdio.h>
#include <stdlib.h>

#include "grapnel/tests/capi/runs/digits_train.h"
#include "grapnel/tests/capi/runs/text.h"

static int write_part(const char* out, const char* part, const text* content) {
  char path[4096];
  snprintf(path, sizeof(path), "%s.%s", out, part);
  FILE* const file = fopen(path, "wb");
  if (file == NULL) return 0;
  const int written =
      fwrite(content->data, 1, content->size, file) == content->size;
  return fclose(file) == 0 && written;
}

int main(int argc, char** argv) {
  digits_plan plan = {0};
  digits_outcome outcome = {0};
  if (argc != 6) return 99;
  plan.data_dir = argv[1];
  plan.work_dir = argv[2];
  plan.steps = atoll(argv[3]);
  plan.resume = atoi(argv[4]);
  digits_train(&plan, &outcome);
  const int good = outcome.error.size == 0 &&
                   write_part(argv[5], "trace", &outcome.trace) &&
                   write_part(argv[5], "weights", &outcome.weights) &&
                   write_part(argv[5], "metrics", &outcome.metrics);
  if (outcome.error.data != NULL) fputs(outcome.error.data, stderr);
  digits_outcome_clear(&outcome);
  return good ? 0 : 1;
}
