// The program `adder` behind the fence. With ADDER_FENCE_PLANT=N in the environment the host reads
// the memory of the device once, after the N-th table line: the fence must end the program then.
#include <cstdio>
#include <cstdlib>

#include "apps/command_line.h"
#include "fence/fence.h"

int main(int argc, char** argv) {
  const char* plant = std::getenv("ADDER_FENCE_PLANT");
  // Never destroyed: buffers of static lifetime are given back through it.
  auto* fence = new adder::tests::FenceBackend(plant != nullptr ? std::atoll(plant) : 0);
  adder::set_device_backend(adder::Device::cpu, fence);
  return adder::apps::run_command_line(argc, argv);
}
