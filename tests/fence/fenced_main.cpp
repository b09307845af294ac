// The program `adder` behind the fence of measure/fence.h: memory of the device can be touched only
// while a table line or a copy runs. With ADDER_FENCE_PLANT=N in the environment the host reads
// such memory once, after the N-th line or copy: the fence must end the program there.
#include <cstdlib>

#include "apps/command_line.h"
#include "measure/fence.h"

namespace {

using adder::Memory;
using adder::MemoryKind;

class PlantedFence final : public adder::measure::Fence {
 public:
  explicit PlantedFence(int64_t plant_at) : plant_at_(plant_at) {}

  std::byte* allocate(int64_t bytes, const Memory& memory) override {
    std::byte* data = Fence::allocate(bytes, memory);
    if (memory.kind == MemoryKind::device) newest_ = data;
    return data;
  }
  void end_line() override {
    Fence::end_line();
    if (newest_ == nullptr || ++lines_ != plant_at_) return;
    static_cast<void>(*static_cast<volatile std::byte*>(newest_));
  }

 private:
  const int64_t plant_at_;
  int64_t lines_ = 0;
  std::byte* newest_ = nullptr;
};

}  // namespace

int main(int argc, char** argv) {
  const char* plant = std::getenv("ADDER_FENCE_PLANT");
  // Never destroyed: buffers of static lifetime are given back through it.
  new PlantedFence(plant != nullptr ? std::atoll(plant) : 0);
  return adder::apps::run_command_line(argc, argv);
}
