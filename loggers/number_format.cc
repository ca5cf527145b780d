#include "grapnel/loggers/number_format.h"

#include <charconv>
#include <cmath>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace grapnel {

void AppendPythonRepr(double value, std::string* text) {
  if (std::isnan(value)) {
    text->append("nan");
    return;
  }
  if (std::signbit(value)) text->push_back('-');
  if (std::isinf(value)) {
    text->append("inf");
    return;
  }

  // The shortest digits, as "d.ddde-XX", in which to_chars leaves no choice.
  char buffer[32];
  char* const end =
      std::to_chars(buffer, buffer + sizeof(buffer), std::fabs(value),
                    std::chars_format::scientific)
          .ptr;
  const absl::string_view scientific(buffer, end - buffer);
  const size_t e = scientific.find('e');
  const int exponent = std::atoi(std::string(scientific.substr(e + 1)).c_str());
  if (exponent < -4 || exponent >= 16) {
    absl::StrAppend(text, scientific);  // Two digits or more, as in Python.
    return;
  }

  std::string digits(1, scientific[0]);
  if (e > 2) absl::StrAppend(&digits, scientific.substr(2, e - 2));
  if (exponent < 0) {
    absl::StrAppend(text, "0.", std::string(-exponent - 1, '0'), digits);
    return;
  }
  const size_t before_point = exponent + 1;
  if (digits.size() <= before_point) {
    digits.resize(before_point, '0');
    absl::StrAppend(text, digits, ".0");
    return;
  }
  absl::StrAppend(text, digits.substr(0, before_point), ".",
                  digits.substr(before_point));
}

std::string PythonRepr(double value) {
  std::string text;
  AppendPythonRepr(value, &text);
  return text;
}

}  // namespace grapnel
