// Any text as config.json; what is accepted must survive the adder layout field by field.
#include "formats/model_config.h"
#include "formats/scratch_folder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace adder;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  ReadConfig read;
  if (!message_of([&] { read = parse_model_config(parse_json(text, "f"), "f"); }).empty()) return 0;
  const JsonValue json = model_config_json(read.config, ConfigLayout::adder);
  const std::string first = write_json(json);
  const ReadConfig again = parse_model_config(parse_json(first, "again"), "again");
  if (write_json(model_config_json(again.config, ConfigLayout::adder)) != first) std::abort();
  if (!hf_cannot_express(read.config)) model_config_json(read.config, ConfigLayout::hf);
  return 0;
}
