// Any text as JSON; what is accepted must survive writing and reading.
#include "formats/json.h"
#include "formats/scratch_folder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  adder::JsonValue json;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (!adder::message_of([&] { json = adder::parse_json(text, "fuzz"); }).empty()) return 0;
  const std::string written = adder::write_json(json);
  // Tagging a non-finite number adds a value and a level: the limits may be reached only then.
  adder::JsonLimits limits;
  limits.max_depth += 1;
  limits.max_values *= 2;
  if (adder::write_json(adder::parse_json(written, "again", limits)) != written) std::abort();
  return 0;
}
