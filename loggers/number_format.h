// Numbers as text.

#ifndef GRAPNEL_LOGGERS_NUMBER_FORMAT_H_
#define GRAPNEL_LOGGERS_NUMBER_FORMAT_H_

#include <string>

namespace grapnel {

// Appends `value` as Python's repr() writes it: the shortest text that reads
// back to the same double, with ".0" if it looks like an integer and an
// exponent below 1e-4 and from 1e16 on; "nan", "inf", "-inf". No locale plays a
// part.
void AppendPythonRepr(double value, std::string* text);

std::string PythonRepr(double value);

}  // namespace grapnel

#endif  // GRAPNEL_LOGGERS_NUMBER_FORMAT_H_
