#include "models/model_io.h"

#include <algorithm>

#include "formats/model_files.h"

namespace adder {
namespace {

void refuse_unknown_tensors(const ModelFiles& files, const ParamTable& table) {
  for (const std::string& stored : files.names()) {
    bool known = false;
    for (const ParamInfo& info : table.infos()) {
      known = known || stored == info.name ||
              (files.has(info.name) && files.stored_name(info.name) == stored);
    }
    if (!known) {
      throw Error({"tensor that this model does not have", files.directory() + ": '" + stored + "'",
                   "one of the names of `adder info`", "'" + stored + "'"});
    }
  }
}

template <class Acc>
void read_parameters(const ModelFiles& files, LanguageModel<Acc>& model) {
  const ParamTable& table = model.params();
  refuse_unknown_tensors(files, table);
  constexpr int64_t kPiece = ParamStore<Acc>::kPiece;
  std::vector<Acc> piece;
  for (int64_t i = 0; i < table.size(); ++i) {
    const ParamInfo& info = table.info(i);
    if (!info.alias_of.empty()) continue;
    if (!files.has(info.name)) {
      throw Error({"missing tensor", files.directory(), "'" + info.name + "'", "none"});
    }
    for (int64_t first = 0; first < info.count(); first += kPiece) {
      const int64_t count = std::min(kPiece, info.count() - first);
      piece.resize(static_cast<size_t>(count));
      files.read_part<Acc>(info.name, info.shape, first, count, piece.data());
      model.store().write(i, first, count, piece.data());
    }
  }
}

}  // namespace

template <class Acc>
std::unique_ptr<LanguageModel<Acc>> load_model(const std::string& directory,
                                               const ModelBuild& build) {
  const ModelFiles files(directory);
  auto model = make_model<Acc>(files.config(), build);
  read_parameters(files, *model);
  return model;
}

template <class Acc>
void load_parameters(const std::string& directory, LanguageModel<Acc>& model) {
  read_parameters(ModelFiles(directory), model);
}

template <class Acc>
std::string save_model(const LanguageModel<Acc>& model, const std::string& directory) {
  SaveModel save;
  save.config = model.config();
  save.layout = layout_for(model.config());
  const ParamTable& table = model.params();
  std::vector<std::vector<float>> tensors;  // staged, in f32
  for (int64_t i = 0; i < table.size(); ++i) {
    const ParamInfo& info = table.info(i);
    if (!info.alias_of.empty()) continue;
    const std::vector<Acc> values = model.store().read(i);
    tensors.emplace_back(values.begin(), values.end());
    save.tensors.push_back(tensor_source(info.name, info.shape, tensors.back().data()));
  }
  adder::save_model(directory, save);
  return hf_cannot_express(model.config()).value_or("");
}

#define ADDER_MODEL_IO(Acc)                                                        \
  template std::unique_ptr<LanguageModel<Acc>> load_model<Acc>(const std::string&, \
                                                               const ModelBuild&); \
  template void load_parameters<Acc>(const std::string&, LanguageModel<Acc>&);     \
  template std::string save_model<Acc>(const LanguageModel<Acc>&, const std::string&);
ADDER_MODEL_IO(float)
ADDER_MODEL_IO(double)
#undef ADDER_MODEL_IO

}  // namespace adder
