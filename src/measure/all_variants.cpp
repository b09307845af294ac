#include <iterator>

#include "measure/variant.h"

namespace adder::measure {

std::span<const Family> families() {
  static constexpr Family kFamilies[] = {
      {"s6", s6_variants, true},
      {"ssd", ssd_variants, false},
      {"ssd_product", ssd_product_variants, false},
      {"conv1d", conv1d_variants, false},
      {"norm", norm_variants, true},
      {"gemm", gemm_variants, false},
      {"embed", embed_variants, true},
      {"pointwise", pointwise_variants, true},
      {"loss", loss_variants, true},
      {"optim", optim_variants, true},
      {"sample", sample_variants, true},
  };
  return kFamilies;
}

std::vector<Variant> all_variants(Purpose purpose) {
  std::vector<Variant> all;
  for (const Family& family : families()) {
    auto more = family.variants(purpose);
    all.insert(all.end(), std::make_move_iterator(more.begin()),
               std::make_move_iterator(more.end()));
  }
  return all;
}

}  // namespace adder::measure
