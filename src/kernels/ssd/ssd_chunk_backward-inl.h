// Backward of one chunk and group (math.md 4.4), once per SIMD target. U is the gradient of the
// state that leaves the chunk, H the state that enters it; X_j = weight_j x_j, G_i = rise_i gy_i,
// e and l the scales `entering` and `leaving`. Where decays are mild (ChunkDecays) they are in X
// and G alone:
//
//   T_j   = sum_{i>=j} CB_ij G_i + l U B_j;  dx_j = weight_j T_j + D gy_j
//   GX_ij = G_i . X_j;  dCB_ij = sum over heads of GX_ij
//   dC_i  = sum over heads of e G_i H, plus dCB B;  dB_j = sum over heads of l X_j U, plus dCB^T C
//   U'    = e^cs_last U + e sum_i G_i C_i^T
//
// Steep chunks take CB o L for CB, gy and delta x for G and X inside the chunk, and e^cs_i,
// e^(cs_last - cs_j) on what meets H and U.

// Per-target include guard (Highway's toggle pattern).
#if defined(ADDER_SSD_CHUNK_BACKWARD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ADDER_SSD_CHUNK_BACKWARD_INL_H_
#undef ADDER_SSD_CHUNK_BACKWARD_INL_H_
#else
#define ADDER_SSD_CHUNK_BACKWARD_INL_H_
#endif

#include <hwy/highway.h>

#include "kernels/ssd/ssd_chunk_rows-inl.h"
#include "kernels/ssd/ssd_chunk_tiles-inl.h"

HWY_BEFORE_NAMESPACE();
namespace adder::HWY_NAMESPACE {

/// One call: what every item reads.
template <class T, class Tiles>
struct BackwardJob {
  using C = accumulate_t<T>;
  const SsdShape& shape;
  const SsdBackward<T>& args;
  Tiles tiles;
  ssd::ChunkSizes sizes;
  const ssd::BackwardScratch<T>& scratch;
  ssd::HeadBlocks blocks;

  const ssd::Chunk& chunk(int64_t index) const { return scratch.list.chunks[index]; }
  int64_t state_size() const { return shape.head_dim * shape.state; }
  /// Of a state's gradient in scratch.
  int64_t padded_size() const { return shape.head_dim * sizes.state_row; }
  const C* entering(const ssd::Chunk& chunk, int64_t head) const {
    return args.saved + (chunk.saved * shape.heads + head) * state_size();
  }
  C* gradient(int64_t matrix, int64_t head) const {
    return scratch.gradients + (matrix * shape.heads + head) * padded_size();
  }
  bool enters_zero(const ssd::Chunk& chunk) const { return chunk.first && args.in.h0 == nullptr; }
  bool leaves_zero(const ssd::Chunk& chunk) const { return chunk.last && args.ghT == nullptr; }
  /// True where the gradient of the entering state is needed.
  bool passes_on(const ssd::Chunk& chunk) const { return !chunk.first || args.dh0 != nullptr; }
};

/// Adds the gradients of the pairs of one head to those of the scores, and finds for each position
/// m the sum of E_ij = scores_ij pairs_ij over j < m <= i: rows from the last one up, `column` has
/// the sums of the columns so far. decay is absent where pairs hold the decays.
template <class C>
void add_pairs(const ChunkPlace& place, int64_t row, const C* pairs, const C* scores,
               const C* decay, C* dscores, C* column, C* crossing) {
  const Words<C> d;
  const int64_t lanes = lanes_of<C>();
  std::fill_n(column, place.padded(), C(0));
  for (int64_t i = place.count() - 1; i >= 0; --i) {
    const int64_t at = i * row;
    auto sum = hn::Zero(d);
    int64_t j = 0;
    const auto add_word = [&](auto pair) HWY_ATTR {
      const auto scaled = decay != nullptr ? hn::Mul(pair, hn::LoadU(d, decay + at + j)) : pair;
      hn::StoreU(hn::Add(hn::LoadU(d, dscores + at + j), scaled), d, dscores + at + j);
      const auto total = hn::MulAdd(hn::LoadU(d, scores + at + j), pair, hn::LoadU(d, column + j));
      hn::StoreU(total, d, column + j);
      return total;
    };
    for (; j + lanes <= i; j += lanes) {
      sum = hn::Add(sum, add_word(hn::LoadU(d, pairs + at + j)));
    }
    const auto inside = hn::FirstN(d, static_cast<size_t>(i - j + 1));
    const auto before = hn::FirstN(d, static_cast<size_t>(i - j));
    const auto last = add_word(hn::IfThenElseZero(inside, hn::LoadU(d, pairs + at + j)));
    sum = hn::Add(sum, hn::IfThenElseZero(before, last));
    crossing[i] = hn::GetLane(hn::SumOfLanes(d, sum));
  }
}

/// sums += scale rows; dots[t] = scale rows_t . with_t, whole words.
template <class C>
void add_rows(const C* rows, C scale, const C* with, int64_t count, int64_t whole, int64_t row,
              C* sums, C* dots) {
  const Words<C> d;
  const auto factor = hn::Set(d, scale);
  for (int64_t t = 0; t < count; ++t) {
    auto dot = hn::Zero(d);
    for (int64_t c = t * row; c < t * row + whole; c += lanes_of<C>()) {
      const auto word = hn::Mul(factor, hn::LoadU(d, rows + c));
      dot = hn::MulAdd(word, hn::LoadU(d, with + c), dot);
      hn::StoreU(hn::Add(hn::LoadU(d, sums + c), word), d, sums + c);
    }
    dots[t] = hn::GetLane(hn::SumOfLanes(d, dot));
  }
}

/// One chunk of one block of heads on one worker.
template <class T, class Tiles>
class BackwardChunk {
 public:
  using C = accumulate_t<T>;
  using Left = typename Tiles::Left;
  using Right = typename Tiles::Right;

  BackwardChunk(const BackwardJob<T, Tiles>& job, int64_t index, int64_t block,
                ssd::BackwardSpace<C>& space)
      : job_(job),
        sizes_(job.sizes),
        in_(job.args.in),
        tiles_(job.tiles),
        place_(place_of(job.shape, job.args.in.order, job.chunk(index), block)),
        space_(space),
        part_(block % job.blocks.per_group),
        index_(index),
        count_(place_.count()) {
    find_steps(job.shape, in_, place_, sizes_, space.steps);
    load_rows<C>(place_, in_.C, state_channel(), sizes_.state, nullptr, space.C_rows,
                 sizes_.state_row);
  }

  void prepare_states() { C_right_ = tiles_.right(states_of(space_.C_rows), space_.C_right); }
  void prepare_gradients() {
    load_rows<C>(place_, in_.B, state_channel(), sizes_.state, nullptr, space_.B, sizes_.state_row);
    C_left_ = tiles_.left(states_of(space_.C_rows), space_.C_left);
    B_left_ = tiles_.left(states_of(space_.B), space_.B_left);
    const Right B_t = tiles_.right_t(states_of(space_.B), space_.B_t);
    tiles_.product({.data = space_.scores,
                    .row = sizes_.token_row,
                    .rows = count_,
                    .cols = count_,
                    .lower = true},
                   {C_left_, B_t, sizes_.state});
    clear_above_diagonal(place_, space_.scores, sizes_.token_row);
    scores_t_ = tiles_.left_t(square_of(space_.scores), space_.scores_left_t);
    std::fill_n(space_.dscores, count_ * sizes_.token_row, C(0));
    std::fill_n(space_.dB, count_ * sizes_.state_row, C(0));
    std::fill_n(space_.dC, count_ * sizes_.state_row, C(0));
  }

  /// Decays and G: before anything else of the head.
  void begin_head(int64_t head) {
    head_ = head;
    find_decays(space_.steps, head - place_.first_head, count_, sizes_, &space_.decays);
    load_gradients(space_.decays.rise, space_.gy);
  }
  C whole() const { return space_.decays.whole; }

  /// to = whole from + decays.entering sum_i G_i C_i^T, (head_dim, state_row) each; from ==
  /// nullptr: zero.
  void update(const C* from, C* to) {
    const Left gy = tiles_.left_t(channels_of(space_.gy), space_.gy_left_t);
    tiles_.update({.to = to,
                   .from = from,
                   .row = sizes_.state_row,
                   .rows = sizes_.head_dim,
                   .cols = whole_states(),
                   .whole = space_.decays.whole,
                   .scale = space_.decays.entering},
                  {gy, C_right_, count_}, space_.added, sizes_.state_row);
  }

  ChunkPlace place() const { return place_; }

  /// All gradients of the head. leaving (head_dim, state_row): U; absent: zero. entering
  /// (head_dim, state): H; absent: zero.
  void head_gradients(const C* entering, const C* leaving) {
    load_rows<C>(place_, in_.x, channel(), sizes_.head_dim, space_.decays.weight, space_.x,
                 sizes_.channel_row);
    C inherited = 0;  // e^cs_last <H, U>
    if (entering != nullptr)
      inherited = through_entering(entering, leaving);
    else
      std::fill_n(space_.out_part, count_, C(0));
    if (leaving != nullptr)
      through_leaving(leaving);
    else
      std::fill_n(space_.in_part, count_, C(0));
    inside(leaving);
    if (in_.z && job_.args.dz) recompute_outputs(entering);
    finish_rows();
    finish_steps(inherited);
  }

  /// After all heads: what they share.
  void finish_block() {
    const Matrix<C> dscores = square_of(space_.dscores);
    const Right B = tiles_.right(states_of(space_.B), space_.B_right);
    if (job_.args.dC) {
      multiply_block(space_.dC,
                     {tiles_.left(dscores, space_.scores_left), B, count_, Reach::lower});
      store_rows(space_.dC, job_.args.dC, job_.scratch.dC);
    }
    if (job_.args.dB) {
      const Right C_rows = tiles_.right(states_of(space_.C_rows), space_.C_right);
      multiply_block(space_.dB,
                     {tiles_.left_t(dscores, space_.scores_left_t), C_rows, count_, Reach::upper});
      store_rows(space_.dB, job_.args.dB, job_.scratch.dB);
    }
    finish_dt();
  }

 private:
  int64_t channel() const { return head_ * sizes_.head_dim; }
  int64_t state_channel() const { return place_.group * sizes_.state; }
  int64_t whole_states() const { return ssd::round_up(sizes_.state, lanes_of<C>()); }
  Matrix<C> states_of(const C* data) const {
    return {data, sizes_.state_row, count_, sizes_.state};
  }
  Matrix<C> channels_of(const C* data) const {
    return {data, sizes_.channel_row, count_, sizes_.head_dim};
  }
  Matrix<C> square_of(const C* data) const { return {data, sizes_.token_row, count_, count_}; }
  Matrix<C> state_of(const C* data) const {
    return {data, sizes_.state_row, sizes_.head_dim, sizes_.state};
  }

  /// Rows scale_t gy_t of the ungated output's gradient (scale absent: 1).
  void load_gradients(const C* scale, C* to) {
    if (!in_.z) {
      load_rows<C>(place_, job_.args.gy, channel(), sizes_.head_dim, scale, to, sizes_.channel_row);
      return;
    }
    const Words<C> d;
    for (int64_t t = 0; t < count_; ++t) {
      const T* gy = place_.row(job_.args.gy, t, channel());
      const T* z = place_.row(in_.z, t, channel());
      const auto factor = hn::Set(d, scale != nullptr ? scale[t] : C(1));
      for (int64_t c = 0; c < sizes_.head_dim; c += lanes_of<C>()) {
        const size_t n = words_left(c);
        const auto gated = hn::Mul(load_n(d, gy + c, n), silu_word(d, load_n(d, z + c, n)));
        hn::StoreU(hn::Mul(factor, gated), d, to + t * sizes_.channel_row + c);
      }
    }
  }
  size_t words_left(int64_t c) const {
    return static_cast<size_t>(std::min(lanes_of<C>(), sizes_.head_dim - c));
  }

  /// dC and O_i = e^cs_i gy_i . (H C_i); gives e^cs_last <H, U>.
  C through_entering(const C* entering, const C* leaving) {
    const C scale = space_.decays.entering;
    C product = 0;
    for (int64_t p = 0; p < sizes_.head_dim; ++p) {
      C* to = space_.entering + p * sizes_.state_row;
      scale_row(entering + p * sizes_.state, sizes_.state, scale, to);
      if (leaving != nullptr) {
        product += dot_row(to, leaving + p * sizes_.state_row, whole_states());
      }
    }
    const Left gy = tiles_.left(channels_of(space_.gy), space_.gy_left);
    const Right state = tiles_.right(state_of(space_.entering), space_.entering_right);
    multiply_states({gy, state, sizes_.head_dim});
    add_rows(space_.through, C(1), space_.C_rows, count_, whole_states(), sizes_.state_row,
             space_.dC, space_.out_part);
    return product * (space_.decays.mild ? space_.decays.leaving : space_.decays.whole);
  }

  /// dB and F_j = e^(cs_last - cs_j) delta_j x_j . (U B_j).
  void through_leaving(const C* leaving) {
    const Left x = tiles_.left(channels_of(space_.x), space_.x_left);
    const Right state = tiles_.right(state_of(leaving), space_.leaving_right);
    multiply_states({x, state, sizes_.head_dim});
    add_rows(space_.through, space_.decays.leaving, space_.B, count_, whole_states(),
             sizes_.state_row, space_.dB, space_.in_part);
  }
  void multiply_states(const typename Tiles::Term& term) {
    tiles_.product(
        {.data = space_.through, .row = sizes_.state_row, .rows = count_, .cols = sizes_.state},
        term);
  }
  void multiply_block(C* out, const typename Tiles::Term& term) {
    tiles_.product(
        {.data = out, .row = sizes_.state_row, .rows = count_, .cols = sizes_.state, .add = true},
        term);
  }

  /// GX, dCB, the crossing sums of E, and T.
  void inside(const C* leaving) {
    if (space_.decays.mild) {
      inside_of(space_.x, space_.gy, space_.gy_left, nullptr, space_.scores);
      multiply_inputs(scores_t_, B_left_, space_.gy, leaving);
      return;
    }
    form_decays(space_.decays, place_, space_.scores, sizes_.token_row, space_.decay,
                space_.masked);
    load_rows<C>(place_, in_.x, channel(), sizes_.head_dim, space_.decays.delta, space_.x_steep,
                 sizes_.channel_row);
    load_gradients(nullptr, space_.gy_steep);
    scale_rows(space_.B, count_, sizes_.state, sizes_.state_row, space_.decays.fall,
               space_.B_scaled);
    inside_of(space_.x_steep, space_.gy_steep, space_.gy_steep_left, space_.decay, space_.masked);
    multiply_inputs(tiles_.left_t(square_of(space_.masked), space_.masked_left),
                    tiles_.left(states_of(space_.B_scaled), space_.B_scaled_left), space_.gy_steep,
                    leaving);
  }
  void inside_of(const C* x, const C* gy, C* gy_slot, const C* decay, const C* scores) {
    const Left rows = tiles_.left(channels_of(gy), gy_slot);
    const Right cols = tiles_.right_t(channels_of(x), space_.x_t);
    tiles_.product({.data = space_.pairs,
                    .row = sizes_.token_row,
                    .rows = count_,
                    .cols = count_,
                    .lower = true},
                   {rows, cols, sizes_.head_dim});
    add_pairs(place_, sizes_.token_row, space_.pairs, scores, decay, space_.dscores, space_.column,
              space_.crossing);
  }
  /// T = scores^T G + B U^T.
  void multiply_inputs(const Left& scores_t, const Left& B, const C* gy, const C* leaving) {
    const typename Tiles::Out out{
        .data = space_.dx, .row = sizes_.channel_row, .rows = count_, .cols = sizes_.head_dim};
    const typename Tiles::Term own{scores_t, tiles_.right(channels_of(gy), space_.gy_right), count_,
                                   Reach::upper};
    if (leaving == nullptr) return tiles_.product(out, own);
    const Right state = tiles_.right_t(state_of(leaving), space_.leaving_t, space_.decays.leaving);
    tiles_.product(out, own, {B, state, sizes_.state});
  }

  /// y before the gate and without D x, for dz.
  void recompute_outputs(const C* entering) {
    const bool mild = space_.decays.mild;
    const Left scores =
        tiles_.left(square_of(mild ? space_.scores : space_.masked), space_.scores_left);
    const Right x = tiles_.right(channels_of(mild ? space_.x : space_.x_steep), space_.x_right);
    typename Tiles::Out out{
        .data = space_.y, .row = sizes_.channel_row, .rows = count_, .cols = sizes_.head_dim};
    const typename Tiles::Term own{scores, x, count_, Reach::lower};
    const auto scale = [&] {
      scale_rows(space_.y, count_, sizes_.head_dim, sizes_.channel_row, space_.decays.rise,
                 space_.y);
    };
    if (entering == nullptr) {
      tiles_.product(out, own);
      if (mild) scale();
      return;
    }
    const Right state = tiles_.right_t(state_of(space_.entering), space_.entering_t);
    const typename Tiles::Term carried{C_left_, state, sizes_.state};
    if (mild) {
      tiles_.product(out, own, carried);
      return scale();
    }
    tiles_.product(out, carried);
    scale();
    out.add = true;
    tiles_.product(out, own);
  }

  /// dx, dz, the parts of dD, and direct_j = fall_j x_j . T_j.
  void finish_rows() {
    const Words<C> d;
    const bool mild = space_.decays.mild, gated = static_cast<bool>(in_.z);
    const C* scale = mild ? space_.decays.weight : space_.decays.delta;
    C* dD = job_.scratch.dD + index_ * job_.shape.d_elements() +
            (job_.shape.d_per_channel ? channel() : head_);
    std::fill_n(dD, job_.shape.d_per_channel ? sizes_.head_dim : 1, C(0));
    auto all_D = hn::Zero(d);
    for (int64_t t = 0; t < count_; ++t) {
      const C* row = space_.dx + t * sizes_.channel_row;
      const T* x_row = place_.row(in_.x, t, channel());
      const T* gy_row = place_.row(job_.args.gy, t, channel());
      auto direct = hn::Zero(d);
      for (int64_t c = 0; c < sizes_.head_dim; c += lanes_of<C>()) {
        const size_t n = words_left(c);
        const auto x = load_n(d, x_row + c, n), T_word = hn::LoadU(d, row + c);
        auto gy = load_n(d, gy_row + c, n);
        if (gated) gy = pass_gate(t, c, n, gy, x);
        direct = hn::MulAdd(x, T_word, direct);
        if (job_.args.dx) {
          auto dx = hn::Mul(hn::Set(d, scale[t]), T_word);
          if (in_.D != nullptr) dx = hn::MulAdd(skip_word(c, n), gy, dx);
          store_n(dx, d, place_.row(job_.args.dx, t, channel()) + c, n);
        }
        if (job_.shape.d_per_channel) {
          store_n(hn::MulAdd(gy, x, load_n(d, dD + c, n)), d, dD + c, n);
        } else {
          all_D = hn::MulAdd(gy, x, all_D);
        }
      }
      const C sum = hn::GetLane(hn::SumOfLanes(d, direct));
      space_.direct[t] = mild ? sum * space_.decays.fall[t] : sum;
    }
    if (!job_.shape.d_per_channel) *dD = hn::GetLane(hn::SumOfLanes(d, all_D));
  }
  HWY_INLINE V<Words<C>> skip_word(int64_t c, size_t n) const {
    const Words<C> d;
    if (!job_.shape.d_per_channel) return hn::Set(d, in_.D[head_]);
    return load_n(d, in_.D + channel() + c, n);
  }
  /// Writes dz of one word; gives the gradient of the ungated y.
  HWY_INLINE V<Words<C>> pass_gate(int64_t t, int64_t c, size_t n, V<Words<C>> gy, V<Words<C>> x) {
    const Words<C> d;
    const auto z = load_n(d, place_.row(in_.z, t, channel()) + c, n);
    if (job_.args.dz) {
      auto y = hn::LoadU(d, space_.y + t * sizes_.channel_row + c);
      if (in_.D != nullptr) y = hn::MulAdd(skip_word(c, n), x, y);
      store_n(hn::Mul(hn::Mul(gy, silu_slope_word(d, z)), y), d,
              place_.row(job_.args.dz, t, channel()) + c, n);
    }
    return hn::Mul(gy, silu_word(d, z));
  }

  /// The gradient of delta and the part of dA (math.md 4.4).
  void finish_steps(C inherited) {
    const C A = in_.A[head_];
    C* ddelta = space_.ddelta + (head_ - place_.first_head) * sizes_.tokens;
    C after = 0;  // sum of O_i, i >= m
    for (int64_t m = count_ - 1; m >= 0; --m) {
      after += space_.out_part[m];
      ddelta[m] = after;
    }
    C before = 0;  // sum of F_j, j < m
    C dA = 0;
    for (int64_t m = 0; m < count_; ++m) {
      const C dlog = inherited + space_.crossing[m] + ddelta[m] + before;
      before += space_.in_part[m];
      ddelta[m] = space_.direct[m] + A * dlog;
      dA += space_.decays.delta[m] * dlog;
    }
    job_.scratch.dA[index_ * job_.shape.heads + head_] = dA;
  }

  /// ddt and the parts of ddt_bias: heads side by side.
  void finish_dt() {
    const Words<C> d;
    C* by_token = space_.steps.by_token;
    const C* slopes = by_token + 3 * sizes_.tokens * sizes_.head_row;
    transpose_tile(space_.ddelta, sizes_.tokens, place_.heads, count_, C(1), by_token,
                   sizes_.head_row);
    const int64_t first = place_.first_head;
    for (int64_t h = 0; h < place_.heads; h += lanes_of<C>()) {
      const auto n = static_cast<size_t>(std::min(lanes_of<C>(), place_.heads - h));
      auto sum = hn::Zero(d);
      for (int64_t t = 0; t < count_; ++t) {
        const int64_t at = t * sizes_.head_row + h;
        const auto ddt = hn::Mul(hn::LoadU(d, by_token + at), hn::LoadU(d, slopes + at));
        sum = hn::Add(sum, ddt);
        if (job_.args.ddt) store_n(ddt, d, place_.row(job_.args.ddt, t, first + h), n);
      }
      store_n(sum, d, job_.scratch.dt_bias + index_ * job_.shape.heads + first + h, n);
    }
  }

  /// Rows of dB or dC: the only block of a group rounds them, others keep parts.
  void store_rows(const C* from, const TokenView<T>& view, C* parts) {
    const Words<C> d;
    const int64_t width = job_.shape.groups * sizes_.state;
    for (int64_t t = 0; t < count_; ++t) {
      const C* row = from + t * sizes_.state_row;
      if (job_.blocks.per_group > 1) {
        const int64_t batch = part_ * job_.shape.batch + place_.chunk.batch;
        const int64_t token = batch * job_.shape.len + place_.token(t);
        std::copy_n(row, sizes_.state, parts + token * width + state_channel());
        continue;
      }
      T* to = place_.row(view, t, state_channel());
      for (int64_t c = 0; c < sizes_.state; c += lanes_of<C>()) {
        const auto n = static_cast<size_t>(std::min(lanes_of<C>(), sizes_.state - c));
        store_n(hn::LoadU(d, row + c), d, to + c, n);
      }
    }
  }

  const BackwardJob<T, Tiles>& job_;
  const ssd::ChunkSizes& sizes_;
  const SsdInputs<T>& in_;
  const Tiles& tiles_;
  ChunkPlace place_;
  ssd::BackwardSpace<C>& space_;
  int64_t part_;  // of dB and dC
  int64_t index_, count_;
  int64_t head_ = 0;
  Left C_left_, B_left_, scores_t_;
  Right C_right_;
};

}  // namespace adder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
