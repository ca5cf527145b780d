// What a rehearsal saw, for people.

#ifndef GRAPNEL_TOOLS_REPORT_TABLE_H_
#define GRAPNEL_TOOLS_REPORT_TABLE_H_

#include <string>

#include "grapnel/runner/rehearsal.h"

namespace grapnel {

// Lines of columns: the model's tensors, its data, losses, memory and time.
// Bytes in units of 1000, times per iteration.
std::string ReportTable(const RehearsalReport& report);

}  // namespace grapnel

#endif  // GRAPNEL_TOOLS_REPORT_TABLE_H_
