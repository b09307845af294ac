#include <iterator>

#include "measure/variant.h"

namespace adder::measure {
namespace {

void append(std::vector<Variant>& all, std::vector<Variant> more) {
  all.insert(all.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
}

}  // namespace

std::vector<Variant> all_variants([[maybe_unused]] Purpose purpose) {
  std::vector<Variant> all;
#ifdef ADDER_HAS_S6
  append(all, s6_variants(purpose));
#endif
#ifdef ADDER_HAS_CONV1D
  append(all, conv1d_variants(purpose));
#endif
#ifdef ADDER_HAS_NORM
  append(all, norm_variants(purpose));
#endif
#ifdef ADDER_HAS_GEMM
  append(all, gemm_variants(purpose));
#endif
#ifdef ADDER_HAS_EMBED
  append(all, embed_variants(purpose));
#endif
#ifdef ADDER_HAS_POINTWISE
  append(all, pointwise_variants(purpose));
#endif
#ifdef ADDER_HAS_LOSS
  append(all, loss_variants(purpose));
#endif
#ifdef ADDER_HAS_OPTIM
  append(all, optim_variants(purpose));
#endif
  return all;
}

}  // namespace adder::measure
