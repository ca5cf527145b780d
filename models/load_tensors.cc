#include "grapnel/models/load_tensors.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "c10/core/GradMode.h"
#include "c10/core/ScalarType.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/models/shape.h"

namespace grapnel {
namespace {

// "3 tensors (a, b, c)", shortened.
std::string Listed(const std::vector<std::string>& names) {
  constexpr size_t kShown = 5;
  const auto end = names.begin() + std::min(kShown, names.size());
  return absl::StrCat(names.size(), " (",
                      absl::StrJoin(names.begin(), end, ", "),
                      names.size() > kShown ? ", ...)" : ")");
}

struct Copy {
  at::Tensor from;
  at::Tensor to;
};

// Whether numbers of type `from` are still themselves in `to`, but for the
// precision of floating types.
bool CanHold(at::ScalarType to, at::ScalarType from) {
  if (from == to) return true;
  if (!c10::canCast(from, to)) return false;
  if (!at::isIntegralType(to, /*includeBool=*/false)) return true;
  if (from == at::kBool) return true;
  return c10::elementSize(to) > c10::elementSize(from) &&
         (c10::isSignedType(to) || !c10::isSignedType(from));
}

// Why `copy` can't be made; "" if it can.
std::string Mismatch(const Copy& copy) {
  if (copy.from.sizes() != copy.to.sizes()) {
    return absl::StrCat("has the shape ", ShapeString(copy.from.sizes()),
                        ", the model's is ", ShapeString(copy.to.sizes()));
  }
  if (!CanHold(copy.to.scalar_type(), copy.from.scalar_type())) {
    return absl::StrCat("is ", c10::toString(copy.from.scalar_type()),
                        ", the model's is ",
                        c10::toString(copy.to.scalar_type()));
  }
  return "";
}

}  // namespace

absl::Status LoadTensors(const TensorMap& tensors, bool strict,
                         const std::vector<NamedTensor>& into,
                         std::vector<std::string>* report) {
  std::vector<Copy> copies;
  std::vector<std::string> missing, mismatched;
  absl::flat_hash_set<absl::string_view> known;
  for (const NamedTensor& mine : into) {
    known.insert(mine.name);
    const at::Tensor* theirs = tensors.Find(mine.name);
    if (theirs == nullptr) {
      missing.push_back(mine.name);
      continue;
    }
    if (!theirs->defined()) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor \"", mine.name, "\": has no value"));
    }
    const Copy copy = {*theirs, mine.tensor};
    const std::string mismatch = Mismatch(copy);
    if (mismatch.empty()) {
      copies.push_back(copy);
    } else {
      mismatched.push_back(absl::StrCat(mine.name, ": ", mismatch));
    }
  }
  std::vector<std::string> unexpected;
  for (const NamedTensor& theirs : tensors) {
    if (!known.contains(theirs.name)) unexpected.push_back(theirs.name);
  }

  const std::pair<const char*, const std::vector<std::string>&> kinds[] = {
      {"missing: ", missing},
      {"mismatched: ", mismatched},
      {"unexpected: ", unexpected}};
  const bool nothing = copies.empty() && !known.empty();
  if (nothing || (strict && !(missing.empty() && mismatched.empty() &&
                              unexpected.empty()))) {
    std::vector<std::string> parts;
    for (const auto& [what, names] : kinds) {
      if (!names.empty()) parts.push_back(absl::StrCat(what, Listed(names)));
    }
    return absl::InvalidArgumentError(
        absl::StrCat(nothing ? "there is nothing for the model: "
                             : "tensors don't match the model's: ",
                     absl::StrJoin(parts, "; ")));
  }
  if (report != nullptr) {
    report->clear();
    for (const auto& [what, names] : kinds) {
      for (const std::string& name : names) {
        report->push_back(absl::StrCat(what, name));
      }
    }
  }
  return CatchAsStatus([&] {
    const c10::AutoGradMode no_grad(false);
    for (const Copy& copy : copies) copy.to.copy_(copy.from);
    return absl::OkStatus();
  });
}

}  // namespace grapnel
