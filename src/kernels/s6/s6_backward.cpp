// Backward of the lines "sequential" and "chunked": every sequence from its last chunk to its
// first.
#include "kernels/s6/s6_lines.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/s6/s6_backward.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/s6/s6_backward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

template <class T>
void backward_whole_sequences(const S6Shape& shape, const S6Backward<T>& args, Exec exec) {
  using C = accumulate_t<T>;
  auto* segments = exec.carve<s6::Segment>(s6::max_segments(shape, s6::kWholeSequence));
  const int64_t count = s6::list_segments(shape, args.in.cu_seqlens, s6::kWholeSequence, segments);
  const int64_t bundles = HWY_MIN(count, s6::kMaxBundles);
  const int64_t channels = s6::padded_channels<C>(shape);
  PartialSums<C> sums;
  const BackwardJob<T> job = carve_backward(shape, args, &exec, bundles, &sums);
  C* mu = exec.carve<C>(bundles * channels * job.states);
  scale_decay_rates(shape, job.cut, args.in.A, exec.threads, job.a2);
  const int64_t tiles = job.cut.tiles();
  parallel_for(exec.threads, bundles * tiles, [&](int64_t item) {
    const FlushSubnormals flush;
    const int64_t bundle = item / tiles;
    const s6::Tile tile = job.cut.tile(item % tiles);
    const PartialSums<C> own = clear_sums(job, tile, sums, bundle, channels);
    C* own_mu = mu + bundle * channels * job.states + tile.word * job.word_size();
    const int64_t end = s6::first_of_bundle(bundle + 1, bundles, count);
    for (int64_t i = s6::first_of_bundle(bundle, bundles, count); i < end; ++i) {
      load_final_gradient(job, segments[i].row, tile, own_mu);
      backward_segment(job, segments[i], tile, own_mu, own);
      store_entering_gradient(job, segments[i].row, tile, own_mu);
    }
  });
  sum_tiles(job, args.dB, job.dB, exec.threads);
  sum_tiles(job, args.dC, job.dC, exec.threads);
  sum_bundles(job, sums, bundles, channels, exec.threads);
}

void backward_f64(const S6Shape& shape, const S6Backward<double>& args, Exec exec) {
  backward_whole_sequences(shape, args, exec);
}
void backward_f32(const S6Shape& shape, const S6Backward<float>& args, Exec exec) {
  backward_whole_sequences(shape, args, exec);
}
void backward_bf16(const S6Shape& shape, const S6Backward<Bf16>& args, Exec exec) {
  backward_whole_sequences(shape, args, exec);
}

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace adder {

HWY_EXPORT(backward_f64);
HWY_EXPORT(backward_f32);
HWY_EXPORT(backward_bf16);

namespace s6 {

template <>
void chunked_backward(const S6Shape& shape, const S6Backward<double>& args, Exec exec) {
  HWY_DYNAMIC_DISPATCH(backward_f64)(shape, args, exec);
}
template <>
void chunked_backward(const S6Shape& shape, const S6Backward<float>& args, Exec exec) {
  HWY_DYNAMIC_DISPATCH(backward_f32)(shape, args, exec);
}
template <>
void chunked_backward(const S6Shape& shape, const S6Backward<Bf16>& args, Exec exec) {
  HWY_DYNAMIC_DISPATCH(backward_bf16)(shape, args, exec);
}

}  // namespace s6
}  // namespace adder
#endif
