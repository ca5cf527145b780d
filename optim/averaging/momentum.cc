#include "grapnel/optim/averaging/momentum.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/check_field.h"
#include "grapnel/base/status_macros.h"

namespace grapnel {

absl::StatusOr<double> AverageMomentum(std::optional<double> momentum,
                                       std::optional<double> decay) {
  constexpr char kRange[] = "> 0 and < 1";
  if (momentum.has_value() && decay.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("decay: is ", *decay, " and momentum ", *momentum,
                     ": one is 1 minus the other, and at most one may be set"));
  }
  if (decay.has_value()) {
    GRAPNEL_RETURN_IF_ERROR(
        CheckField(*decay > 0 && *decay < 1, "decay", kRange, *decay));
    momentum = 1 - *decay;
  }
  const double value = momentum.value_or(kDefaultAverageMomentum);
  GRAPNEL_RETURN_IF_ERROR(
      CheckField(value > 0 && value < 1, "momentum", kRange, value));
  return value;
}

std::vector<std::string> AverageMomentumWarnings(double momentum) {
  if (momentum <= 0.5) return {};
  return {absl::StrCat("momentum: is ", momentum,
                       ", the weight of the new value, and so hardly an "
                       "average; for a decay of ",
                       momentum, " set decay")};
}

}  // namespace grapnel
