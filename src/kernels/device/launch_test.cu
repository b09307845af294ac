// The launch wrapper on a GPU.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/error.h"
#include "core/workspace.h"
#include "kernels/device/cuda_backend.h"
#include "kernels/device/launch.cuh"

namespace adder {
namespace {

__global__ void add_index(int64_t count, float* x) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
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
