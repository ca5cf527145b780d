// Handwritten digits for a runner of the C API, from a pair of IDX files.

#ifndef GRAPNEL_EXAMPLES_C_TRAIN_DIGITS_DATA_H_
#define GRAPNEL_EXAMPLES_C_TRAIN_DIGITS_DATA_H_

#include "grapnel/grapnel.h"

// Gives the loop `mode` the digits of `part`, "train" or "test", in the folder
// `dir`: "input", (1, 8, 8), 0 to 1, and "target", 0 to 9. Both strings end
// with NUL.
grapnel_status* digits_set_data(grapnel_runner_options* options,
                                grapnel_mode mode, const char* dir,
                                const char* part);

#endif  // GRAPNEL_EXAMPLES_C_TRAIN_DIGITS_DATA_H_
