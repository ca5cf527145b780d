#include "grapnel/hooks/checkpoint/publish_checkpoint.h"

#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_files.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/digest.h"
#include "grapnel/io/env.h"
#include "grapnel/loggers/run_log.h"

namespace grapnel {
namespace {

using RepeatedString = google::protobuf::RepeatedPtrField<std::string>;

// Leaves only what has a name in `keys`; the names of the rest, and of keys
// that name nothing.
void KeepOnly(const RepeatedString& keys, io::CheckpointContents* contents,
              std::vector<std::string>* dropped,
              std::vector<std::string>* missing) {
  std::set<std::string> unused(keys.begin(), keys.end());
  std::set<std::string> wanted = unused;
  const auto keep = [&](const std::string& name) {
    unused.erase(name);
    if (wanted.count(name) > 0) return true;
    dropped->push_back(name);
    return false;
  };
  const auto filter = [&](auto* parts) {
    parts->erase(
        std::remove_if(parts->begin(), parts->end(),
                       [&](const auto& part) { return !keep(part.first); }),
        parts->end());
  };
  filter(&contents->sections);
  filter(&contents->blobs);
  if (!keep(kConfigPart)) contents->manifest().clear_config();
  if (!keep(kMetricsPart)) contents->manifest().clear_metrics();
  missing->assign(unused.begin(), unused.end());
}

void AddMetrics(const Metrics& metrics, io::v1::CheckpointManifest* manifest) {
  for (const auto& [name, value] : metrics) {
    if (const auto number = AsNumber(value)) {
      (*manifest->mutable_metrics())[name] = *number;
    }
  }
}

// Eight digits that differ if the content does.
std::string DigestOf(const io::CheckpointContents& contents) {
  const io::v1::CheckpointManifest& manifest = contents.manifest();
  std::map<std::string, std::string> digests;
  for (const io::v1::FileRecord& file : manifest.files()) {
    digests[file.name()] = file.xxh3_128();
  }
  std::string text;
  const auto append = [&](const auto& parts, absl::string_view suffix) {
    for (const auto& part : parts) {
      const std::string file = absl::StrCat(part.first, suffix);
      absl::StrAppend(&text, file, "\n", digests[file]);
    }
  };
  append(contents.sections, io::kSectionSuffix);
  append(contents.blobs, io::kBlobSuffix);
  absl::StrAppend(&text, "\n", manifest.config(), "\n");
  const std::map<std::string, double> metrics(manifest.metrics().begin(),
                                              manifest.metrics().end());
  for (const auto& [name, value] : metrics) {
    absl::StrAppend(&text, name, absl::StrFormat(" %a\n", value));
  }
  return absl::BytesToHexString(io::Xxh3Digest128(text).substr(0, 4));
}

}  // namespace

absl::Status PublishCheckpoint(io::Env& env, const PublishRequest& request,
                               RunLog& log) {
  const std::string name = io::Basename(request.path);
  auto contents = io::ReadCheckpoint(env, request.path);
  if (absl::IsNotFound(contents.status())) {
    log.Warning(absl::StrCat("published_keys: ", contents.status().message()));
    return absl::OkStatus();
  }
  if (!contents.ok()) return contents.status();
  // One that was saved before its validation may have metrics now. What older
  // versions wrote there is of the validation before.
  if (contents->manifest().progress().validation_pending() ||
      contents->manifest().metrics().empty()) {
    contents->manifest().clear_metrics();
    if (contents->manifest().progress().iter() == request.metrics_iter) {
      AddMetrics(*request.metrics, &contents->manifest());
    }
  }
  std::vector<std::string> dropped, missing;
  KeepOnly(*request.keys, &*contents, &dropped, &missing);
  if (!missing.empty()) {
    log.Warning(absl::StrCat("published_keys: ", name, " has no ",
                             absl::StrJoin(missing, ", ")));
  }
  if (contents->sections.empty() && contents->blobs.empty()) {
    log.Warning(absl::StrCat("published_keys: nothing of ", name,
                             " would be left, it isn't published"));
    return absl::OkStatus();
  }
  contents->manifest().set_partial(true);
  const std::string published = absl::StrCat(name, "-", DigestOf(*contents));
  if (io::ReadManifest(env, io::JoinPath(request.dir, published)).ok()) {
    return absl::OkStatus();  // By a run that ended here before.
  }
  GRAPNEL_RETURN_IF_ERROR(
      io::WriteCheckpoint(env, request.dir, published, *contents));
  log.Info(absl::StrCat("The checkpoint ", name, " is published as ", published,
                        ", without ", absl::StrJoin(dropped, ", ")));
  return absl::OkStatus();
}

}  // namespace grapnel
