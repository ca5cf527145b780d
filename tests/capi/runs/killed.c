// Trains, from where it was before if it was: WORK_DIR MAX_ITERS OUTCOME. The
// file OUTCOME is what there is in the end.

#include <stdio.h>
#include <stdlib.h>

#include "grapnel/tests/capi/runs/guest.h"
#include "grapnel/tests/capi/runs/text.h"

static int write_file(const char* path, const text* content) {
  FILE* const file = fopen(path, "wb");
  if (file == NULL) return 0;
  const int written =
      fwrite(content->data, 1, content->size, file) == content->size;
  return fclose(file) == 0 && written;
}

int main(int argc, char** argv) {
  guest it = {0};
  guest_plan plan = {0};
  text outcome = {NULL, 0};
  if (argc != 4) return 99;
  plan.work_dir = argv[1];
  plan.max_iters = atoll(argv[2]);
  plan.seed = 3;
  plan.num_workers = 1;
  plan.interval = 20;
  plan.resume = 1;
  const int good = guest_create(&plan, &it) && guest_train(&it) &&
                   guest_read(&it, &outcome) && write_file(argv[3], &outcome);
  if (it.error.data != NULL) fputs(it.error.data, stderr);
  guest_destroy(&it);
  text_clear(&outcome);
  return good ? 0 : 1;
}
