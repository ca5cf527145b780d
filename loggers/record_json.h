// Records as JSON.

#ifndef GRAPNEL_LOGGERS_RECORD_JSON_H_
#define GRAPNEL_LOGGERS_RECORD_JSON_H_

#include <string>

#include "absl/strings/string_view.h"
#include "grapnel/loggers/log_backend.h"

namespace grapnel {

// Appends, on one line, what Python's json.dumps writes for a dictionary of the
// scalars in their order and then "step":
//
//   {"lr": 0.01, "loss": -0.0125, "epoch": 1, "iter": 2, "step": 2}
//
// Doubles keep their full precision; NaN, Infinity and -Infinity are bare
// words. A scalar that is called "step" takes the place of the record's own,
// and a test's record has none.
void AppendRecordJson(const Record& record, std::string* json);

std::string RecordToJson(const Record& record);

// Appends one value of such a line; text is as AppendAsciiJsonString makes it.
void AppendJsonNumber(const Scalar& scalar, std::string* json);

}  // namespace grapnel

#endif  // GRAPNEL_LOGGERS_RECORD_JSON_H_
