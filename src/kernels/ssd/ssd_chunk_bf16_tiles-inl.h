// Tiles that round their operands to bf16 and sum in float (math.md 4.3), once per SIMD target.

// Per-target include guard (Highway's toggle pattern).
#if defined(ADDER_SSD_CHUNK_BF16_TILES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ADDER_SSD_CHUNK_BF16_TILES_INL_H_
#undef ADDER_SSD_CHUNK_BF16_TILES_INL_H_
#else
#define ADDER_SSD_CHUNK_BF16_TILES_INL_H_
#endif

#include "core/subnormals.h"
#include "kernels/ssd/ssd_chunk_bf16.h"
#include "kernels/ssd/ssd_chunk_tiles-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

/// The same words as FmaTiles; operands are copies in the slots.
struct Bf16Tiles {
  struct Left {
    const uint16_t* data = nullptr;
    int64_t row = 0;
  };
  struct Right {
    const uint32_t* data = nullptr;
    int64_t row = 0;
  };
  struct Term {
    Left left;
    Right right;
    int64_t depth = 0;
    Reach reach = Reach::full;
  };
  using Out = TileOut<float>;

  class Session {
   public:
    explicit Session(const Bf16Tiles& tiles) : units_(*tiles.units) { units_.begin(); }
    ~Session() { units_.end(); }
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

   private:
    FlushSubnormals flush_;
    const ssd::Bf16Units& units_;
  };

  Left left(const Matrix<float>& m, float* slot) const {
    const Left out = left_in(slot, m.cols);
    ssd::pack_left(as_floats(m), const_cast<uint16_t*>(out.data), out.row);
    return out;
  }
  Left left_t(const Matrix<float>& m, float* slot) const {
    const Left out = left_in(slot, m.rows);
    ssd::pack_left_t(as_floats(m), const_cast<uint16_t*>(out.data), out.row);
    return out;
  }
  Right right(const Matrix<float>& m, float* slot) const {
    const Right out = right_in(slot, m.cols);
    ssd::pack_right(as_floats(m), const_cast<uint32_t*>(out.data), out.row);
    return out;
  }
  Right right_t(const Matrix<float>& m, float* slot, float scale = 1) const {
    const Right out = right_in(slot, m.rows);
    ssd::pack_right_t(as_floats(m), scale, const_cast<uint32_t*>(out.data), out.row);
    return out;
  }

  void product(const Out& out, const Term& one) const { product(out, one, Term()); }
  void product(const Out& out, const Term& one, const Term& two) const {
    units->multiply({out.rows,
                     out.cols,
                     out.data,
                     out.row,
                     out.add,
                     out.lower,
                     {as_units(one), as_units(two)}});
  }

  void update(const StateUpdate<float>& u, const Term& term, float* scratch,
              int64_t scratch_row) const {
    product({.data = scratch, .row = scratch_row, .rows = u.rows, .cols = u.cols}, term);
    update_state(u, scratch, scratch_row);
  }

  const ssd::Bf16Units* units;

 private:
  static ssd::FloatMatrix as_floats(const Matrix<float>& m) {
    return {m.data, m.row, m.rows, m.cols};
  }
  static ssd::Bf16Term as_units(const Term& term) {
    return {term.left.data,
            term.left.row,
            term.right.data,
            term.right.row,
            term.depth,
            term.reach == Reach::lower,
            term.reach == Reach::upper};
  }
  /// Whole cache lines, an odd number of them: rows of a tile then lie in different sets.
  static Left left_in(float* slot, int64_t depth) {
    const int64_t lines = ssd::ceil_div(depth, ssd::kDepthBlock) | 1;
    return {reinterpret_cast<const uint16_t*>(slot), lines * ssd::kDepthBlock};
  }
  static Right right_in(float* slot, int64_t cols) {
    return {reinterpret_cast<const uint32_t*>(slot), ssd::padded_row(cols)};
  }
};

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
