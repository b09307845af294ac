// The launch wrapper on a GPU.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/workspace.h"
#include "kernels/device/cuda_backend.h"
#include "kernels/device/launch.cuh"
#include "kernels/device/numbers.cuh"

namespace adder {
namespace {

__global__ void add_index(int64_t count, float* x) {
  const int64_t i = index_x();
  if (i < count) x[i] += static_cast<float>(i);
}

// Reverses the elements of one block by way of shared memory.
__global__ void reverse_block(int count, float* x) {
  extern __shared__ float row[];
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) {
    row[i] = x[i];
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) {
    x[i] = row[count - 1 - i];
  }
}

template <class T>
__global__ void convert_all(int64_t count, const T* from, float* wide, const float* to_round,
                            T* to) {
  const int64_t i = index_x();
  if (i >= count) return;
  wide[i] = widened(from[i]);
  to[i] = rounded<T>(to_round[i]);
}

class Launch : public testing::Test {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << "no GPU here";
    context_ = use_cuda(0);
    exec_.stream = context_.stream;
  }
  Context context_;
  Exec exec_;
};

TEST_F(Launch, RunsOnTheStreamWithMoreSharedMemoryThanTheDefault) {
  const int count = static_cast<int>(context_.caps.shared_bytes / 4);
  Buffer buffer(4 * count, context_.memory(MemoryKind::device));
  buffer.fill(0);
  launch("add_index", add_index, {blocks_for(count, 256), 256}, exec_, count, buffer.as<float>());
  launch("reverse_block", reverse_block, {1, 256, 4 * count}, exec_, count, buffer.as<float>());
  std::vector<float> x(static_cast<size_t>(count));
  buffer.read(0, x.data(), buffer.bytes());
  for (int i = 0; i < count; ++i) EXPECT_EQ(x[static_cast<size_t>(i)], count - 1 - i);
}

bool same(float a, float b) { return a == b || (std::isnan(a) && std::isnan(b)); }

// Widens all numbers of a half-precision type, and rounds the values midway between neighbours,
// which must go to the even one.
template <class T>
void convert_as_the_host_does(const Context& context, const Exec& exec) {
  constexpr size_t kCount = 1 << 16;
  std::vector<T> from(kCount), to(kCount);
  std::vector<float> wide(kCount), midway(kCount);
  for (size_t i = 0; i < kCount; ++i) from[i].bits = static_cast<uint16_t>(i);
  for (size_t i = 0; i < kCount; ++i) {
    const T next = from[(i + 1) % kCount];
    midway[i] = 0.5f * static_cast<float>(from[i]) + 0.5f * static_cast<float>(next);
  }
  const Memory memory = context.memory(MemoryKind::device);
  Buffer halves(2 * kCount, memory), floats(4 * kCount, memory);
  Buffer wide_there(4 * kCount, memory), to_there(2 * kCount, memory);
  halves.write(0, from.data(), halves.bytes());
  floats.write(0, midway.data(), floats.bytes());
  launch("convert_all", convert_all<T>, {blocks_for(kCount, 256), 256}, exec, kCount,
         halves.as<T>(), wide_there.as<float>(), floats.as<float>(), to_there.as<T>());
  wide_there.read(0, wide.data(), wide_there.bytes());
  to_there.read(0, to.data(), to_there.bytes());
  for (size_t i = 0; i < kCount; ++i) {
    EXPECT_TRUE(same(wide[i], static_cast<float>(from[i]))) << i;
    EXPECT_TRUE(same(static_cast<float>(to[i]), static_cast<float>(T(midway[i])))) << midway[i];
  }
}

TEST_F(Launch, HalfPrecisionConvertsAsOnTheHost) {
  convert_as_the_host_does<Bf16>(context_, exec_);
  convert_as_the_host_does<F16>(context_, exec_);
}

TEST_F(Launch, AnEmptyGridIsNothing) {
  launch("add_index", add_index, {blocks_for(0, 256), 256}, exec_, 0, nullptr);
  context_.backend().synchronize(context_.stream);
}

TEST_F(Launch, ARefusedLaunchIsNamed) {
  try {
    launch("add_index", add_index, {1, 5000}, exec_, 0, nullptr);
    FAIL() << "a block of 5000 threads was launched";
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_TRUE(
        message.starts_with("device 'cuda:0': launch of add_index failed: cudaErrorInvalid"))
        << message;
  }
  context_.backend().synchronize(context_.stream);
}

}  // namespace
}  // namespace adder
