// One call of `gemm`.
#pragma once

#include <string>
#include <vector>

#include "kernels/gemm/gemm.h"
#include "kernels/ref/gemm_ref.h"
#include "measure/call_options.h"

namespace adder::measure {

struct GemmCase {
  GemmShape shape;
  int64_t pad = 0;  // elements between the rows of every matrix

  std::string describe() const {
    return shape.describe() + (pad > 0 ? " pad" + std::to_string(pad) : "");
  }
};

template <class TA, class TB, class TC>
class GemmCall : public FamilyCall<GemmCall<TA, TB, TC>> {
 public:
  using Given = GemmCase;
  using Wide = GemmCall<double, double, double>;
  static constexpr Doors<GemmShape, GemmArgs<TA, TB, TC>, NoBackward> kDoors = {
      gemm<TA, TB, TC>, nullptr, ref::gemm<TA, TB, TC>};

  explicit GemmCall(const Given& item) : given(item) {
    const GemmShape& s = item.shape;
    lda = (s.transpose_a ? s.m : s.k) + item.pad;
    ldb = (s.transpose_b ? s.k : s.n) + item.pad;
    ldc = s.n + item.pad;
    a = Guarded<TA>(lda * (s.transpose_a ? s.k : s.m));
    b = Guarded<TB>(ldb * (s.transpose_b ? s.n : s.k));
    c = Guarded<TC>(s.n == 0 ? 0 : ldc * s.m);
    make_arrays(s.bias, s.n, bias);
  }
  GemmCall(const Given& item, uint64_t seed) : GemmCall(item) {
    fill_normal(a, seed, "gemm a");
    fill_normal(b, seed, "gemm b");
    fill_normal(bias, seed, "gemm bias");
    const GemmShape& s = given.shape;
    for (int64_t i = 0; s.accumulate && i < s.m * s.n; ++i) {
      c.set(i / s.n * ldc + i % s.n, normal(seed, stream_of("gemm c"), static_cast<uint64_t>(i)));
    }
  }

  GemmArgs<TA, TB, TC> forward(Side side) {
    GemmArgs<TA, TB, TC> args{a.at(side), lda, b.at(side), ldb, c.at(side), ldc, bias.at(side)};
    if (side == Side::device && !ring_.empty())
      args.b = ring_[next_++ % ring_.size()].template as<TB>();
    return args;
  }
  void list(ArrayList& arrays) override {
    arrays.input("a", a);
    arrays.input("b", b);
    arrays.input("bias", bias);
    arrays.output("c", c);
  }
  // Decoding reads every weight of a model once a token: timed products of few rows walk a ring of
  // weight matrices that no cache holds.
  void prepare_timing(const Context& context) override {
    constexpr int64_t kRingBytes = int64_t{512} << 20;
    constexpr int64_t kDecodeRows = 8;
    const int64_t bytes = b.count() * static_cast<int64_t>(sizeof(TB));
    if (given.shape.m > kDecodeRows || bytes == 0) return;
    for (int64_t i = 0; i < kRingBytes / bytes; ++i) {
      ring_.emplace_back(bytes, context.memory(MemoryKind::device));
      ring_.back().write(0, b.data(), bytes);
    }
  }
  static Cost cost(const Given& given, Direction) {
    return given.shape.cost(dtype_of<TA>, dtype_of<TB>, dtype_of<TC>);
  }

  Given given;
  int64_t lda, ldb, ldc;
  Guarded<TA> a;
  Guarded<TB> b;
  Guarded<TC> c;
  Guarded<accumulate_t<TA>> bias;

  GemmCall(const GemmCall& other)
      : FamilyCall<GemmCall>(other),
        given(other.given),
        lda(other.lda),
        ldb(other.ldb),
        ldc(other.ldc),
        a(other.a),
        b(other.b),
        c(other.c),
        bias(other.bias) {}  // without the ring

 private:
  std::vector<Buffer> ring_;
  size_t next_ = 0;
};

}  // namespace adder::measure
