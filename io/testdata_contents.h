// What the checkpoints in testdata/ hold.

#ifndef GRAPNEL_IO_TESTDATA_CONTENTS_H_
#define GRAPNEL_IO_TESTDATA_CONTENTS_H_

#include "grapnel/io/checkpoint.h"

namespace grapnel {
namespace io {

// Of testdata/v1/epoch_2. Never changes: a new format gets a function of its
// own.
CheckpointContents TestdataV1();

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_TESTDATA_CONTENTS_H_
