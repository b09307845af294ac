#include <fmt/format.h>

#include <array>

#include "kernels/loss/loss.h"
#include "kernels/ref/loss_ref.h"
#include "measure/tensors.h"
#include "measure/variant.h"

namespace adder::measure {
namespace {

struct Case {
  LossShape shape;
  int64_t pad = 0;   // elements between rows
  double scale = 2;  // standard deviation of the logits
  bool gradient = true;
  bool in_place = false;
  bool infinite = false;  // every fifth logit is -inf (never the target)

  std::string describe() const {
    std::string text = shape.describe();
    if (!gradient) text += " no_gradient";
    if (in_place) text += " in_place";
    if (infinite) text += " minus_inf";
    if (pad > 0) text += fmt::format(" pad{}", pad);
    if (scale > 2) text += fmt::format(" scale{}", scale);
    return text;
  }
};

constexpr double kGradientScale = 1.0 / 64;

template <class L, class D>
struct Tensors {
  int64_t stride;
  Guarded<L> logits;
  Guarded<int32_t> targets;
  Guarded<double> row_loss;
  Guarded<D> dlogits;  // empty when in place or absent

  Tensors(const Case& item, uint64_t seed)
      : stride(item.shape.columns + item.pad),
        logits(item.shape.rows * stride),
        targets(item.shape.rows),
        row_loss(item.shape.rows),
        dlogits(item.gradient && !item.in_place ? item.shape.rows * stride : 0) {
    fill_normal(logits, seed, "loss logits", item.scale);
    const uint64_t stream = stream_of("loss targets");
    for (int64_t r = 0; r < item.shape.rows; ++r) {
      const auto vocab = static_cast<uint64_t>(item.shape.vocab);
      targets[r] =
          static_cast<int32_t>(uniform_below(seed, stream, static_cast<uint64_t>(r), vocab));
      for (int64_t c = 0; item.infinite && c < item.shape.vocab; c += 5) {
        if (c != targets[r]) logits[r * stride + c] = from_double<L>(-INFINITY);
      }
      if (r % 4 == 3) targets[r] = kIgnoreIndex;
    }
  }
  template <class U, class G>
  explicit Tensors(const Tensors<U, G>& other)
      : stride(other.stride),
        logits(other.logits.template converted<L>()),
        targets(other.targets),
        row_loss(other.row_loss.count()),
        dlogits(other.dlogits.count()) {}

  LossForward<L, D> args(const Case& item) {
    LossForward<L, D> args;
    args.logits = logits.data();
    args.logit_stride = stride;
    args.targets = targets.data();
    args.row_loss = row_loss.data();
    if (item.gradient) args.dlogits = dlogits.data();
    if constexpr (std::is_same_v<L, D>) {
      if (item.gradient && item.in_place) args.dlogits = logits.data();
    }
    args.dlogit_stride = stride;
    args.gradient_scale = &kGradientScale;
    return args;
  }
  // Without the padding between rows.
  std::vector<double> gradient(const Case& item) const {
    std::vector<double> values;
    for (int64_t r = 0; r < item.shape.rows; ++r) {
      for (int64_t c = 0; c < item.shape.columns; ++c) {
        const int64_t at = r * stride + c;
        values.push_back(item.in_place ? to_double(logits[at]) : to_double(dlogits[at]));
      }
    }
    return values;
  }
};

template <class T>
bool same_bytes(const Guarded<T>& x, const Guarded<T>& y) {
  return std::memcmp(x.data(), y.data(), static_cast<size_t>(x.count()) * sizeof(T)) == 0;
}

// True when the elements between the rows are as they were.
template <class T>
bool same_padding(const Case& item, int64_t stride, const Guarded<T>& x, const Guarded<T>& y) {
  for (int64_t r = 0; r < item.shape.rows; ++r) {
    const int64_t first = r * stride + item.shape.columns;
    const auto bytes = static_cast<size_t>(item.pad) * sizeof(T);
    if (std::memcmp(x.data() + first, y.data() + first, bytes) != 0) return false;
  }
  return true;
}

template <class L, class D>
Comparison check(const LossLine<L, D>& line, const Case& item, const RunOptions& options) {
  Tensors<L, D> given(item, options.seed);
  Tensors<L, D> evaluated(given);
  Tensors<double, double> expected(given), absolute(given);
  const Tensors<L, D> before(given);
  Exec exec;
  exec.threads = options.threads;
  line.run.forward(item.shape, given.args(item), exec);
  ref::softmax_cross_entropy(item.shape, evaluated.args(item));
  ref::softmax_cross_entropy(item.shape, expected.args(item));
  ref::softmax_cross_entropy(item.shape, absolute.args(item), true);

  Comparison comparison;
  // The loss is a double that holds sums of the compute type.
  comparison.add({"row_loss", dtype_of<L>, given.row_loss.widened(), expected.row_loss.widened(),
                  evaluated.row_loss.widened(), absolute.row_loss.widened()});
  if (item.gradient) {
    comparison.add({"dlogits", dtype_of<D>, given.gradient(item), expected.gradient(item),
                    evaluated.gradient(item), absolute.gradient(item)});
  }
  given.logits.check_guards(comparison, "logits");
  given.row_loss.check_guards(comparison, "row_loss");
  given.dlogits.check_guards(comparison, "dlogits");
  const bool kept = item.in_place ? same_padding(item, given.stride, given.logits, before.logits)
                                  : same_bytes(given.logits, before.logits);
  if (!kept || !same_bytes(given.targets, before.targets)) comparison.add_fault("changed an input");
  if (item.gradient && !item.in_place &&
      !same_padding(item, given.stride, given.dlogits, before.dlogits)) {
    comparison.add_fault("wrote between the rows of 'dlogits'");
  }
  return comparison;
}

template <class L, class D>
class PreparedLoss : public Prepared {
 public:
  PreparedLoss(const LossLine<L, D>* line, const Case& item, const RunOptions& options)
      : line_(line), item_(item), tensors_(item, options.seed) {
    exec_.threads = options.threads;
  }
  void run() override {
    if (line_ == nullptr) return ref::softmax_cross_entropy(item_.shape, tensors_.args(item_));
    line_->run.forward(item_.shape, tensors_.args(item_), exec_);
  }

 private:
  const LossLine<L, D>* line_;
  Case item_;
  Tensors<L, D> tensors_;
  Exec exec_;
};

template <class L, class D>
void add_variants(const std::vector<Case>& cases, std::vector<Variant>& variants) {
  const Context context;
  for (const auto& line : loss_lines<L, D>()) {
    for (Case item : cases) {
      if (!std::is_same_v<L, D>) item.in_place = false;
      Variant variant;
      variant.family = "loss";
      variant.line = line.info;
      variant.shape = item.describe();
      if (!std::is_same_v<L, D>) variant.shape += " to " + std::string(dtype_name(dtype_of<D>));
      variant.cost =
          item.shape.cost(item.gradient ? Direction::backward : Direction::forward, dtype_of<L>);
      variant.accepted = line.accepts(context.caps, item.shape);
      const auto* chosen = &line;
      variant.check = [chosen, item](const RunOptions& options) {
        return check(*chosen, item, options);
      };
      variant.prepare = [chosen, item](const RunOptions& options) {
        return std::make_unique<PreparedLoss<L, D>>(chosen, item, options);
      };
      variant.prepare_reference = [item](const RunOptions& options) {
        return std::make_unique<PreparedLoss<L, D>>(nullptr, item, options);
      };
      variants.push_back(std::move(variant));
    }
  }
}

std::vector<Case> test_cases() {
  std::vector<Case> cases;
  int index = 0;
  for (const int64_t vocab : {1, 2, 15, 16, 17, 63, 64, 65, 127, 200, 256, 1009, 5003}) {
    for (const int64_t rows : {0, 1, 5, 64}) {
      if (rows == 64 && vocab > 256) continue;
      if (rows == 0 && vocab > 2) continue;
      Case item;
      item.shape.rows = rows;
      item.shape.vocab = vocab;
      item.shape.columns = vocab + (index % 3 == 1 ? 7 : 0);
      item.shape.label_smoothing = index % 2 == 1 ? 0.1 : 0;
      item.shape.z_loss = index % 5 == 2 ? 1e-3 : 0;
      item.pad = index % 4 == 2 ? 5 : 0;
      item.scale = index % 3 == 2 ? 30 : 2;
      item.in_place = index % 4 == 1;
      item.gradient = index % 7 != 5;
      // Smoothed, a logit of -inf costs infinitely much.
      item.infinite = index % 2 == 0 && index % 3 == 0;
      cases.push_back(item);
      ++index;
    }
  }
  return cases;
}

std::vector<Case> bench_cases() {
  std::vector<Case> cases;
  for (const auto& [rows, vocab, columns] :
       {std::array<int64_t, 3>{2048, 256, 256}, {256, 50277, 50280}}) {
    for (const bool gradient : {true, false}) {
      Case item;
      item.shape.rows = rows;
      item.shape.vocab = vocab;
      item.shape.columns = columns;
      item.gradient = gradient;
      item.in_place = gradient;  // as training runs it
      cases.push_back(item);
    }
  }
  return cases;
}

}  // namespace

std::vector<Variant> loss_variants(Purpose purpose) {
  std::vector<Variant> variants;
  const auto cases = purpose == Purpose::test ? test_cases() : bench_cases();
  if (purpose == Purpose::test) add_variants<double, double>(cases, variants);
  add_variants<float, float>(cases, variants);
  add_variants<float, Bf16>(cases, variants);
  return variants;
}

}  // namespace adder::measure
