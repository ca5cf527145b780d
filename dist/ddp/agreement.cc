#include "grapnel/dist/ddp/agreement.h"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/utf8.h"
#include "grapnel/io/digest.h"

namespace grapnel {
namespace {

void AppendString(absl::string_view text, std::string* out) {
  absl::StrAppend(out, text.size(), ":", text);
}

std::optional<std::string> TakeString(absl::string_view* in) {
  const size_t colon = in->find(':');
  size_t size = 0;
  if (colon == absl::string_view::npos ||
      !absl::SimpleAtoi(in->substr(0, colon), &size) ||
      in->size() - colon - 1 < size) {
    return std::nullopt;
  }
  std::string text(in->substr(colon + 1, size));
  in->remove_prefix(colon + 1 + size);
  return text;
}

std::string Encode(const std::vector<AgreedItem>& items) {
  std::string out;
  for (const AgreedItem& item : items) {
    AppendString(item.name, &out);
    AppendString(item.value, &out);
  }
  return out;
}

absl::StatusOr<std::vector<AgreedItem>> Decode(absl::string_view bytes,
                                               int rank) {
  std::vector<AgreedItem> items;
  while (!bytes.empty()) {
    std::optional<std::string> name = TakeString(&bytes);
    std::optional<std::string> value;
    if (name.has_value()) value = TakeString(&bytes);
    if (!value.has_value()) {
      return absl::FailedPreconditionError(absl::StrCat(
          "rank ", rank,
          " doesn't say what it has as this one does: all ranks have to run "
          "the same program"));
    }
    items.push_back({*std::move(name), *std::move(value)});
  }
  return items;
}

bool Equal(const AgreedItem& a, const AgreedItem& b) {
  return a.name == b.name && a.value == b.value;
}

// The first place where they differ; the length of the shorter one if that is
// all of it.
size_t FirstDifference(const std::vector<AgreedItem>& a,
                       const std::vector<AgreedItem>& b) {
  const size_t size = std::min(a.size(), b.size());
  size_t i = 0;
  while (i < size && Equal(a[i], b[i])) ++i;
  return i;
}

const AgreedItem* Find(const std::vector<AgreedItem>& items,
                       const std::string& name) {
  for (const AgreedItem& item : items) {
    if (item.name == name) return &item;
  }
  return nullptr;
}

std::string Missing(const AgreedItem& item, int with, int without) {
  return absl::StrCat(EscapeToUtf8(item.name), ": ", EscapeToUtf8(item.value),
                      " on rank ", with, ", and rank ", without, " has none");
}

// How `other`, rank's, differs from `first`, rank 0's, at place `i`.
std::string Difference(const std::vector<AgreedItem>& first,
                       const std::vector<AgreedItem>& other, int rank,
                       size_t i) {
  if (i >= other.size()) return Missing(first[i], 0, rank);
  if (i >= first.size()) return Missing(other[i], rank, 0);
  const AgreedItem* same_name = Find(other, first[i].name);
  if (same_name == nullptr) return Missing(first[i], 0, rank);
  if (same_name->value != first[i].value) {
    return absl::StrCat(EscapeToUtf8(first[i].name), ": ",
                        EscapeToUtf8(first[i].value), " on rank 0, ",
                        EscapeToUtf8(same_name->value), " on rank ", rank);
  }
  if (Find(first, other[i].name) == nullptr) {
    return Missing(other[i], rank, 0);
  }
  return absl::StrCat(
      EscapeToUtf8(first[i].name), ": where rank 0 has it rank ", rank, " has ",
      EscapeToUtf8(other[i].name), ": the order must be the same");
}

}  // namespace

absl::Status CheckAgreement(const std::vector<AgreedItem>& items,
                            ProcessGroup& group) {
  const std::string mine = Encode(items);
  GRAPNEL_ASSIGN_OR_RETURN(const std::vector<std::string> digests,
                           group.AllGather(io::Xxh3Digest128(mine)));
  const auto differs = [&](const std::string& one) {
    return one != digests.front();
  };
  if (std::none_of(digests.begin(), digests.end(), differs)) {
    return absl::OkStatus();
  }
  GRAPNEL_ASSIGN_OR_RETURN(const std::vector<std::string> all,
                           group.AllGather(mine));
  GRAPNEL_ASSIGN_OR_RETURN(const std::vector<AgreedItem> first,
                           Decode(all[0], 0));
  std::vector<AgreedItem> other;
  size_t place = 0;
  int rank = 0;  // Whose `other` is, the first that differs at `place`.
  int others = 0;
  for (int i = 1; i < static_cast<int>(all.size()); ++i) {
    if (all[i] == all[0]) continue;
    GRAPNEL_ASSIGN_OR_RETURN(std::vector<AgreedItem> items_of_rank,
                             Decode(all[i], i));
    const size_t difference = FirstDifference(first, items_of_rank);
    if (rank != 0) ++others;
    if (rank != 0 && difference >= place) continue;
    place = difference;
    rank = i;
    other = std::move(items_of_rank);
  }
  GRAPNEL_RET_CHECK(rank != 0);
  std::string message = Difference(first, other, rank, place);
  if (others > 0) {
    absl::StrAppend(&message, " (", others, " more of ", all.size(),
                    " ranks don't have what rank 0 has)");
  }
  return absl::FailedPreconditionError(message);
}

}  // namespace grapnel
