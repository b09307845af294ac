#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <filesystem>

#include "core/atomic_file.h"
#include "core/error.h"
#include "formats/checkpoint.h"

namespace adder {
namespace {

namespace fs = std::filesystem;

/// The step in a checkpoint's name, nothing for any other name.
std::optional<int64_t> step_of(const std::string& name) {
  constexpr std::string_view kPrefix = "checkpoint-";
  if (!name.starts_with(kPrefix)) return {};
  int64_t step = -1;
  std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), step);
  if (step < 0 || name != checkpoint_name(step)) return {};
  return step;
}

/// Loads a checkpoint and holds its manifest against its name: a file from another step that was
/// copied over this one is not this one.
Checkpoint load_of_step(const CheckpointFile& file) {
  Checkpoint checkpoint = load_checkpoint(file.path);
  const JsonValue* step = checkpoint.manifest().find("step");
  if (step != nullptr && *step != JsonValue(file.step)) {
    throw Error({"the manifest is of another step", file.path, std::to_string(file.step),
                 write_json(*step, {0, JsonNonFinite::bare})});
  }
  return checkpoint;
}

bool verifies(const CheckpointFile& file) {
  try {
    load_of_step(file);
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace

std::string checkpoint_name(int64_t step) {
  char name[48];
  std::snprintf(name, sizeof name, "checkpoint-%08lld.adder", static_cast<long long>(step));
  return name;
}

std::vector<CheckpointFile> find_checkpoints(const std::string& directory) {
  std::vector<CheckpointFile> found;
  std::error_code error;
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end;
       entry.increment(error)) {
    const auto step = step_of(entry->path().filename().string());
    if (step) found.push_back({entry->path().string(), *step});
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    throw Error({"cannot list the checkpoints: " + error.message(), directory, {}, {}});
  }
  std::sort(found.begin(), found.end(),
            [](const CheckpointFile& a, const CheckpointFile& b) { return a.step > b.step; });
  return found;
}

std::vector<std::string> keep_checkpoints(const std::string& directory, int64_t keep_last,
                                          std::optional<int64_t> best,
                                          std::span<const int64_t> verified) {
  remove_stale_temporaries(directory);
  std::vector<std::string> surplus;
  int64_t kept = 0;
  for (const CheckpointFile& file : find_checkpoints(directory)) {
    const bool known = std::find(verified.begin(), verified.end(), file.step) != verified.end();
    if (kept < keep_last && (known || verifies(file))) {
      ++kept;
    } else if (best != file.step) {
      surplus.push_back(file.path);
    }
  }
  if (kept < keep_last) return {};
  for (const std::string& path : surplus) {
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
      throw Error({"cannot delete an old checkpoint: " + system_reason(errno), path, {}, {}});
    }
  }
  return surplus;
}

std::optional<Checkpoint> open_newest_valid(const std::string& directory,
                                            const CheckpointSkipped& on_skip) {
  const std::vector<CheckpointFile> files = find_checkpoints(directory);
  for (const CheckpointFile& file : files) {
    try {
      return load_of_step(file);
    } catch (const Error& error) {
      if (on_skip) on_skip(file.path, error.what());
    }
  }
  if (files.empty()) return {};
  throw Error({"no checkpoint verifies", directory,
               "at least one of " + std::to_string(files.size()), "none"});
}

}  // namespace adder
