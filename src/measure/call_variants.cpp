#include "measure/call_variants.h"

#include <utility>

namespace adder::measure {
namespace {

class PreparedDoor : public Prepared {
 public:
  PreparedDoor(std::unique_ptr<Call> call, Direction direction, std::string line,
               const RunOptions& options)
      : call_(std::move(call)),
        direction_(direction),
        line_(std::move(line)),
        workspace_(options.context()) {
    if (direction == Direction::backward) call_->prepare_backward(workspace_, {.name = line_});
    call_->upload(workspace_.context());
    call_->prepare_timing(workspace_.context());
  }
  void run() override {
    workspace_.run(Workspace::Key{},
                   [this](Context& context) { call_->door(context, direction_, {.name = line_}); });
  }

 private:
  std::unique_ptr<Call> call_;
  Direction direction_;
  std::string line_;
  Workspace workspace_;
};

class PreparedReference : public Prepared {
 public:
  PreparedReference(std::unique_ptr<Call> call, Direction direction)
      : call_(std::move(call)), direction_(direction) {}
  void run() override { call_->reference(direction_, false, nullptr); }

 private:
  std::unique_ptr<Call> call_;
  Direction direction_;
};

}  // namespace

Variant call_variant(const char* family, const LineInfo& line, Direction direction,
                     std::string shape, const Cost& cost, const MakeCall& make) {
  Variant variant;
  variant.family = family;
  variant.line = line;
  variant.direction = direction;
  variant.shape = std::move(shape);
  variant.cost = cost;
  variant.check = [=](const RunOptions& options) {
    return check_call(make, line, direction, options);
  };
  variant.prepare = [=](const RunOptions& options) -> std::unique_ptr<Prepared> {
    return std::make_unique<PreparedDoor>(make(options.seed), direction, line.name, options);
  };
  variant.prepare_reference = [=](const RunOptions& options) -> std::unique_ptr<Prepared> {
    return std::make_unique<PreparedReference>(make(options.seed), direction);
  };
  return variant;
}

}  // namespace adder::measure
