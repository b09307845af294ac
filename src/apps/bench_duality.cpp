// `adder bench duality`: time against length of the three forms of SSD, the lengths where one
// overtakes another, and what the Mamba-2 paper (arXiv 2405.21060) claims beside what is measured
// here and what counting operations predicts.
#include "apps/bench_duality.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "apps/duality_plot.h"
#include "apps/output.h"
#include "core/simd_targets.h"
#include "measure/ceilings.h"
#include "measure/report.h"
#include "measure/s6_call.h"
#include "measure/ssd_call.h"
#include "measure/timing.h"

namespace adder::apps {
namespace {

constexpr int64_t kHeads = 8, kHeadDim = 64, kState = 64;
/// Where the published claims are set beside our figures, or at the longest length if that is less.
constexpr int64_t kClaimLen = 4096;
constexpr const char* kForms[] = {"recurrent", "quadratic", "chunked"};

SsdShape ssd_shape(int64_t len, int64_t state) {
  SsdShape shape;
  shape.len = len;
  shape.heads = kHeads;
  shape.head_dim = kHeadDim;
  shape.state = state;
  shape.chunk = ssd_chunk_for(kHeadDim, state);
  return shape;
}

/// The call C of a shape as a model would make it. A state enters and leaves, with gradients for
/// both.
template <class C, class Shape>
std::unique_ptr<C> model_call(const Shape& shape) {
  const measure::ArenaLayout layout;
  return std::make_unique<C>(typename C::Given{.shape = shape, .bias = false}, 1);
}

/// Microseconds forward and of forward with backward.
struct Times {
  double forward = 0;
  double training = 0;
};

/// Each call is measured in several passes over all of them, and its shortest run counts: a busy
/// machine slows seconds, not calls. Long calls run once, in the first pass.
constexpr int kPasses = 3;
constexpr double kLongUs = 3e5;

class Bench {
 public:
  explicit Bench(const DualityOptions& options) : options_(options) {}

  template <class Call>
  Times measure(Call& call, const char* family, const std::string& line) {
    const double forward = one(call, family, line, Direction::forward);
    return {forward, forward + one(call, family, line, Direction::backward)};
  }
  void print_rows() const {
    for (const auto& [key, row] : rows_) put_line(measure::json_line(row));
  }

 private:
  measure::Timing time_call(const Context& context, const std::function<void()>& run) const {
    const double first = context.backend().elapsed_us(context.stream, run);
    if (first > kLongUs) return {first, first, 0, 1};
    return measure::time_runs(run, 3, options_.min_seconds, 4 * options_.min_seconds, context);
  }
  /// Microseconds of the shortest run so far.
  template <class Call>
  double one(Call& call, const char* family, const std::string& line, Direction direction) {
    const auto& shape = call.given.shape;
    measure::BenchRow& row = rows_[fmt::format("{} {} {} {}", family, shape.describe(), line,
                                               direction_name(direction))];
    if (row.best_us > kLongUs) return row.best_us;
    Workspace workspace(options_.threads);
    call.upload(workspace.context());
    const auto timing = time_call(workspace.context(), [&] {
      workspace.run(Workspace::Key{},
                    [&](Context& context) { call.door(context, direction, {.name = line}); });
    });
    if (row.runs > 0 && row.best_us <= timing.best_us) return row.best_us;
    row.family = family;
    row.line = line;
    row.direction = direction_name(direction);
    row.dtype = "f32";
    row.shape = shape.describe();
    row.simd = simd_target_name();
    row.threads = options_.threads;
    row.median_us = timing.median_us;
    row.best_us = timing.best_us;
    row.spread = timing.spread;
    row.runs = timing.runs;
    set_rates(row, shape.cost(direction, Dtype::f32), Dtype::f32);
    return row.best_us;
  }

  const DualityOptions& options_;
  std::map<std::string, measure::BenchRow> rows_;
};

std::string time_text(double us) {
  return us < 1e4 ? fmt::format("{:.0f} us", us) : fmt::format("{:.1f} ms", us / 1e3);
}

struct Curves {
  DualityCurves forward, training;
};

std::vector<int64_t> lengths_of(const DualityOptions& options) {
  std::vector<int64_t> lengths;
  for (int64_t len = 1; len <= options.longest; len *= 2) lengths.push_back(len);
  return lengths;
}

Curves measure_lengths(const DualityOptions& options, Bench& bench) {
  Curves curves;
  for (int pass = 0; pass < kPasses; ++pass) {
    curves = {};
    for (const int64_t len : lengths_of(options)) {
      const auto call = model_call<measure::SsdCall<float>>(ssd_shape(len, kState));
      for (const char* form : kForms) {
        const Times times = bench.measure(*call, "ssd", form);
        curves.forward[form].push_back({static_cast<double>(len), times.forward});
        curves.training[form].push_back({static_cast<double>(len), times.training});
      }
    }
  }
  return curves;
}

void print_curves(const DualityOptions& options, const Curves& curves) {
  put_line(fmt::format(
      "SSD, f32, 1 sequence with h0 and hT, {} heads x {}, state {}, threads: {}; shortest run",
      kHeads, kHeadDim, kState, options.threads));
  put_line(fmt::format("{:>8} | {:>10} {:>10} {:>10} | {:>10} {:>10} {:>10}", "length", kForms[0],
                       kForms[1], kForms[2], kForms[0], kForms[1], kForms[2]));
  put_line(fmt::format("{:>8} | {:^32} | {:^32}", "", "forward", "forward and backward"));
  const auto lengths = lengths_of(options);
  for (size_t i = 0; i < lengths.size(); ++i) {
    std::string line = fmt::format("{:>8}", lengths[i]);
    for (const DualityCurves* each : {&curves.forward, &curves.training}) {
      line += " |";
      for (const char* form : kForms)
        line += fmt::format(" {:>10}", time_text(each->at(form)[i].us));
    }
    put_line(line);
  }
}

void print_crossovers(const DualityOptions& options, const char* what,
                      const DualityCurves& curves) {
  const auto found = crossovers(curves);
  if (!options.json && found.empty()) put_line(fmt::format("{}: no crossover", what));
  for (const Crossover& cross : found) {
    if (options.json) {
      put_line(
          fmt::format("{{\"kind\":\"crossover\",\"direction\":\"{}\",\"before\":\"{}\","
                      "\"after\":\"{}\",\"len\":{:.1f}}}",
                      what, cross.before, cross.after, cross.len));
    } else {
      put_line(fmt::format("{}: {} is faster than {} up to about {:.0f} tokens", what, cross.before,
                           cross.after, cross.len));
    }
  }
}

/// The shortest times that this machine allows, by cost(): what counting operations predicts.
template <class Shape>
Times floors(const Shape& shape, int threads) {
  const auto floor = [&](Direction direction) {
    return measure::floor_of(shape.cost(direction, Dtype::f32), Dtype::f32, threads).us;
  };
  return {floor(Direction::forward), floor(Direction::forward) + floor(Direction::backward)};
}

struct Claim {
  const char* what;
  const char* published;
  Times ours;
  Times predicted;
};

Times ratio(const Times& a, const Times& b) {
  return {a.forward / b.forward, a.training / b.training};
}

void print_claims(const DualityOptions& options, Bench& bench) {
  const int64_t len = std::min(kClaimLen, options.longest);
  const auto scan_shape = [&](int64_t state) {
    S6Shape shape;
    shape.len = len;
    shape.dim = kHeads * kHeadDim;
    shape.state = state;
    return shape;
  };
  struct Measured {
    Times ours, floor;
  };
  const auto ssd = [&](int64_t state) -> Measured {
    const auto call = model_call<measure::SsdCall<float>>(ssd_shape(len, state));
    return {bench.measure(*call, "ssd", "chunked"), floors(call->given.shape, options.threads)};
  };
  const auto scan = [&](int64_t state) -> Measured {
    const auto call = model_call<measure::S6Call<float>>(scan_shape(state));
    return {bench.measure(*call, "s6", "chunked"), floors(call->given.shape, options.threads)};
  };
  Measured scan16, scan64, ssd16, ssd64, ssd128;
  for (int pass = 0; pass < kPasses; ++pass) {
    scan16 = scan(16);
    scan64 = scan(64);
    ssd16 = ssd(16);
    ssd64 = ssd(64);
    ssd128 = ssd(128);
  }
  const Claim claims[] = {
      {"S6 scan / chunked SSD, state 64 each", "2 to 8", ratio(scan64.ours, ssd64.ours),
       ratio(scan64.floor, ssd64.floor)},
      {"S6 scan / chunked SSD, state 16 each", "-", ratio(scan16.ours, ssd16.ours),
       ratio(scan16.floor, ssd16.floor)},
      {"chunked SSD, state 128 / state 16 (8 x larger)", "near 1", ratio(ssd128.ours, ssd16.ours),
       ratio(ssd128.floor, ssd16.floor)},
      {"S6 scan, state 16 / chunked SSD, state 128", "-", ratio(scan16.ours, ssd128.ours),
       ratio(scan16.floor, ssd128.floor)},
  };
  if (!options.json) {
    put_line(
        fmt::format("\nTime ratios at {} tokens, {} channels (arXiv 2405.21060 on a GPU; ours; "
                    "by operation counts)",
                    len, kHeads * kHeadDim));
    put_line(fmt::format("{:<48} {:>9} | {:>7} {:>9} | {:>7} {:>9}", "", "published", "forward",
                         "counted", "fwd+bwd", "counted"));
  }
  for (const Claim& claim : claims) {
    if (options.json) {
      put_line(
          fmt::format("{{\"kind\":\"claim\",\"what\":\"{}\",\"published\":\"{}\",\"forward\":"
                      "{:.3f},\"forward_counted\":{:.3f},\"training\":{:.3f},"
                      "\"training_counted\":{:.3f}}}",
                      claim.what, claim.published, claim.ours.forward, claim.predicted.forward,
                      claim.ours.training, claim.predicted.training));
    } else {
      put_line(fmt::format("{:<48} {:>9} | {:>7.2f} {:>9.2f} | {:>7.2f} {:>9.2f}", claim.what,
                           claim.published, claim.ours.forward, claim.predicted.forward,
                           claim.ours.training, claim.predicted.training));
    }
  }
}

}  // namespace

void run_duality_bench(const DualityOptions& options) {
  if (!options.plot.empty()) open_plot_folder(options.plot);
  Bench bench(options);
  const Curves curves = measure_lengths(options, bench);
  if (!options.json) print_curves(options, curves);
  print_crossovers(options, "forward", curves.forward);
  print_crossovers(options, "forward and backward", curves.training);
  print_claims(options, bench);
  if (options.json) bench.print_rows();
  if (options.plot.empty()) return;
  const std::string title =
      fmt::format("SSD: three forms of one operator (f32, {} heads x {}, state {}; threads: {})",
                  kHeads, kHeadDim, kState, options.threads);
  draw_duality(duality_script(curves.forward, curves.training, title), options.plot);
  if (!options.json)
    put_line(fmt::format("\nplot: {0}/duality.svg, {0}/duality.png", options.plot));
}

}  // namespace adder::apps
