#include <iterator>

#include "measure/variant.h"

namespace adder::measure {
namespace {

void append(std::vector<Variant>& all, std::vector<Variant> more) {
  all.insert(all.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
}

}  // namespace

std::vector<Variant> all_variants(Purpose purpose) {
  std::vector<Variant> all;
  append(all, s6_variants(purpose));
  append(all, ssd_variants(purpose));
  append(all, ssd_product_variants(purpose));
  append(all, conv1d_variants(purpose));
  append(all, norm_variants(purpose));
  append(all, gemm_variants(purpose));
  append(all, embed_variants(purpose));
  append(all, pointwise_variants(purpose));
  append(all, loss_variants(purpose));
  append(all, optim_variants(purpose));
  return all;
}

}  // namespace adder::measure
