// The products of a chunk (math.md 4.10) and nothing else, by the words and units that the chunked
// lines of `ssd` use: what they reach of the machine's product peak. Operands are packed before;
// upper triangles are not counted.
#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "core/rng.h"
#include "core/threads.h"
#include "kernels/ssd/ssd_chunk_bf16.h"
#include "kernels/ssd/ssd_lines.h"
#include "measure/compare.h"
#include "measure/ssd_product.h"
#include "measure/variant.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "measure/ssd_product_variants.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "core/tile_product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

template <class C>
void chunk_product(const measure::ChunkProduct& c, const measure::ProductOperands<C>& operands) {
  TileProduct<C> p;
  p.rows = c.rows;
  p.cols = ssd::round_up(c.cols, static_cast<int64_t>(hn::Lanes(Words<C>())));
  p.out = operands.out;
  p.out_row = c.right_row();
  p.lower_out = c.lower_out;
  p.terms[0] = {operands.left,
                c.left_is_transposed ? 1 : c.left_row(),
                c.left_is_transposed ? c.left_row() : 1,
                operands.right,
                c.right_row(),
                c.depth,
                c.lower_left ? Reach::lower : Reach::full};
  tile_product(p);
}
void chunk_product_f32(const measure::ChunkProduct& c,
                       const measure::ProductOperands<float>& operands) {
  chunk_product(c, operands);
}

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace adder {

HWY_EXPORT(chunk_product_f32);

namespace measure {
namespace {

constexpr int64_t kItems = 64;   // of one call, spread over the threads
constexpr int64_t kRepeats = 8;  // of the product in an item

enum class Units : uint8_t { words, amx, avx512bf16 };

class ProductCall : public Prepared {
 public:
  ProductCall(const ChunkProduct& product, Units units, const RunOptions& options)
      : product_(product),
        units_(units),
        threads_(options.threads),
        left_buffer_(product.left_rows() * product.left_row() * 4),
        right_buffer_(product.depth * product.right_row() * 4),
        out_(product.out_count() * 4 * options.threads),
        packed_left_(ssd::round_up(product.rows, 32) * (product.depth + 96) * 2),
        packed_right_((product.depth + 32) * product.right_row() * 2) {
    fill(options.seed);
    if (units_ != Units::words) pack();
  }

  void run() override {
    parallel_for_workers(threads_, kItems, [this](int64_t, int worker) {
      float* out = out_.as<float>() + worker * product_.out_count();
      const ssd::Bf16Units* units = bf16_units();
      if (units != nullptr) units->begin();
      for (int64_t i = 0; i < kRepeats; ++i) multiply(units, out);
      if (units != nullptr) units->end();
    });
  }

  Comparison check() {
    multiply_once();
    OutputCheck output;
    output.name = "out";
    output.dtype = Dtype::f32;
    for (int64_t i = 0; i < product_.rows; ++i) {
      for (int64_t j = 0; j < product_.cols_of(i); ++j) {
        double sum = 0, size = 0;
        for (int64_t k = 0; k < product_.depth; ++k) {
          const double term = left(i, k) * right_[k * product_.right_row() + j];
          sum += term;
          size += std::abs(term);
        }
        output.got.push_back(out_.as<float>()[i * product_.right_row() + j]);
        output.expected.push_back(sum);
        output.absolute.push_back(size);
      }
    }
    Comparison comparison;
    comparison.add(output);
    return comparison;
  }

 private:
  double left(int64_t i, int64_t k) const {
    const int64_t row = product_.left_row();
    return product_.left_is_transposed ? left_[k * row + i] : left_[i * row + k];
  }
  // Values that bf16 holds; zeros above a diagonal and in the padding.
  void fill(uint64_t seed) {
    std::fill_n(left_, product_.left_rows() * product_.left_row(), 0.0f);
    std::fill_n(right_, product_.depth * product_.right_row(), 0.0f);
    const auto value = [&](uint64_t stream, int64_t at) {
      const double u = uniform01(seed, stream, static_cast<uint64_t>(at));
      return static_cast<float>(Bf16(static_cast<float>(2 * u - 1)));
    };
    for (int64_t i = 0; i < product_.rows; ++i) {
      for (int64_t k = 0; k < product_.depth_of(i); ++k) {
        const int64_t at =
            product_.left_is_transposed ? k * product_.left_row() + i : i * product_.left_row() + k;
        left_[at] = value(1, at);
      }
    }
    for (int64_t k = 0; k < product_.depth; ++k) {
      for (int64_t j = 0; j < product_.cols; ++j) {
        right_[k * product_.right_row() + j] = value(2, k * product_.cols + j);
      }
    }
  }
  int64_t packed_left_row() const { return (ssd::ceil_div(product_.depth, 32) | 1) * 32; }
  void pack() {
    const ssd::FloatMatrix left{left_, product_.left_row(), product_.left_rows(),
                                product_.left_is_transposed ? product_.rows : product_.depth};
    const auto pack_left = product_.left_is_transposed ? ssd::pack_left_t : ssd::pack_left;
    pack_left(left, packed_left_.as<uint16_t>(), packed_left_row());
    ssd::pack_right({right_, product_.right_row(), product_.depth, product_.cols},
                    packed_right_.as<uint32_t>(), product_.right_row());
  }
  const ssd::Bf16Units* bf16_units() const {
    if (units_ == Units::words) return nullptr;
    return units_ == Units::amx ? &ssd::amx_units() : &ssd::avx512bf16_units();
  }
  void multiply(const ssd::Bf16Units* units, float* out) {
    if (units == nullptr) {
      HWY_DYNAMIC_DISPATCH(chunk_product_f32)(product_, {left_, right_, out});
      return;
    }
    ssd::Bf16Product p;
    p.rows = product_.rows;
    p.cols = product_.cols;
    p.out = out;
    p.out_row = product_.right_row();
    p.lower = product_.lower_out;
    p.terms[0] = {packed_left_.as<uint16_t>(),
                  packed_left_row(),
                  packed_right_.as<uint32_t>(),
                  product_.right_row(),
                  product_.depth,
                  product_.lower_left,
                  false};
    units->multiply(p);
  }
  void multiply_once() {
    const ssd::Bf16Units* units = bf16_units();
    if (units != nullptr) units->begin();
    multiply(units, out_.as<float>());
    if (units != nullptr) units->end();
  }

  ChunkProduct product_;
  Units units_;
  int threads_;
  Buffer left_buffer_, right_buffer_, out_;  // out: one for each thread
  float* left_ = left_buffer_.as<float>();
  float* right_ = right_buffer_.as<float>();
  Buffer packed_left_, packed_right_;
};

struct ProductLine {
  LineInfo info;
  Units units;
  bool accepted;
};

LineInfo on_units(const char* name) {
  return {.name = name, .dtype = Dtype::bf16, .matrix_units = true, .rounds_operands = true};
}

std::vector<ProductLine> product_lines() {
  const Caps caps = cpu_caps();
  SsdShape any;
  any.len = 1;
  any.heads = any.head_dim = any.state = 1;
  return {{{"product_words", Device::cpu, Dtype::f32, 0}, Units::words, true},
          {on_units("product_amx"), Units::amx, ssd::amx_accepts(caps, any)},
          {on_units("product_avx512bf16"), Units::avx512bf16, ssd::avx512bf16_accepts(caps, any)}};
}

Variant product_variant(const ProductLine& line, const ChunkProduct& product) {
  Variant variant;
  variant.family = "ssd";
  variant.line = line.info;
  variant.shape = std::string(product.name) + ": " + std::to_string(product.rows) + " x " +
                  std::to_string(product.depth) + " x " + std::to_string(product.cols);
  variant.cost.flops = product.flops() * kItems * kRepeats;
  variant.check = [=](const RunOptions& options) {
    Comparison comparison;
    comparison.accepted = line.accepted;
    return line.accepted ? ProductCall(product, line.units, options).check() : comparison;
  };
  variant.prepare = [=](const RunOptions& options) -> std::unique_ptr<Prepared> {
    return std::make_unique<ProductCall>(product, line.units, options);
  };
  return variant;
}

std::vector<ChunkProduct> products_of(int64_t tokens, int64_t head_dim, int64_t state) {
  return {
      {.name = "C B^T", .rows = tokens, .cols = tokens, .depth = state, .lower_out = true},
      {.name = "scores X", .rows = tokens, .cols = head_dim, .depth = tokens, .lower_left = true},
      {.name = "C H^T", .rows = tokens, .cols = head_dim, .depth = state},
      {.name = "X^T B",
       .rows = head_dim,
       .cols = state,
       .depth = tokens,
       .left_is_transposed = true}};
}

}  // namespace

std::vector<Variant> ssd_product_variants(Purpose purpose) {
  std::vector<ChunkProduct> products;
  const auto add = [&](int64_t tokens, int64_t head_dim, int64_t state) {
    for (const ChunkProduct& p : products_of(tokens, head_dim, state)) products.push_back(p);
  };
  if (purpose == Purpose::bench) {
    add(64, 64, 64);
    add(128, 64, 128);
  } else {
    add(1, 1, 1);
    add(33, 19, 35);
    add(61, 50, 97);
    add(128, 64, 16);
  }
  std::vector<Variant> variants;
  for (const ChunkProduct& product : products) {
    for (const ProductLine& line : product_lines()) {
      variants.push_back(product_variant(line, product));
    }
  }
  return variants;
}

}  // namespace measure
}  // namespace adder
#endif
