#include "apps/kernel_listing.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "kernels/conv1d/conv1d.h"
#include "kernels/embed/embed.h"
#include "kernels/gemm/gemm.h"
#include "kernels/loss/loss.h"
#include "kernels/norm/norm.h"
#include "kernels/optim/optim.h"
#include "kernels/pointwise/pointwise.h"
#include "kernels/s6/s6.h"
#include "kernels/sample/sample.h"
#include "kernels/ssd/ssd.h"

namespace adder::apps {
namespace {

template <class... Types>
std::string type_names() {
  const std::string_view names[] = {dtype_name(dtype_of<Types>)...};
  return fmt::format("{}", fmt::join(names, " "));
}

std::string family_of(const std::string& operation) {
  static const std::pair<const char*, const char*> kShared[] = {
      {"gated_norm", "norm"}, {"gate", "pointwise"},      {"column_sum", "pointwise"},
      {"decay", "pointwise"}, {"convert", "pointwise"},   {"adamw", "optim"},
      {"squares", "optim"},   {"step_decision", "optim"}, {"loss_sum", "loss"}};
  for (const auto& [name, family] : kShared) {
    if (operation == name) return family;
  }
  return operation;
}

template <class L>
void append(std::vector<KernelRow>& rows, const char* operation, std::span<const L> lines,
            const std::string& types) {
  for (const L& line : lines) {
    const std::string name = operation;
    KernelRow row{family_of(name), name, line.info, types, {}};
    for (const Direction direction : {Direction::forward, Direction::backward, Direction::step}) {
      if (line.run.has(direction)) row.directions.push_back(direction);
    }
    rows.push_back(std::move(row));
  }
}

template <class T>
void append_single_type(std::vector<KernelRow>& rows) {
  const std::string types = type_names<T>();
  append(rows, "s6", s6_lines<T>(), types);
  append(rows, "ssd", ssd_lines<T>(), types);
  append(rows, "conv1d", conv1d_lines<T>(), types);
  append(rows, "gated_norm", gated_norm_lines<T>(), types);
  append(rows, "gate", gate_lines<T>(), types);
  append(rows, "column_sum", column_sum_lines<T>(), types);
}

// Types of full precision only.
template <class Acc>
void append_full_precision(std::vector<KernelRow>& rows) {
  const std::string types = type_names<Acc>();
  append(rows, "decay", decay_lines<Acc>(), types);
  append(rows, "adamw", adamw_lines<Acc>(), types);
  append(rows, "squares", squares_lines<Acc>(), types);
}

// Logits, then their gradient.
template <class L, class D>
void append_loss(std::vector<KernelRow>& rows) {
  append(rows, "loss", loss_lines<L, D>(), type_names<L, D>());
}

template <class From, class... To>
void append_convert(std::vector<KernelRow>& rows) {
  (append(rows, "convert", convert_lines<From, To>(), type_names<From, To>()), ...);
}

// Activations, then the residual stream.
template <class T, class R>
void append_norm(std::vector<KernelRow>& rows) {
  append(rows, "norm", norm_lines<T, R>(), type_names<T, R>());
}

// Activations, then the table.
template <class T, class P>
void append_embed(std::vector<KernelRow>& rows) {
  append(rows, "embed", embed_lines<T, P>(), type_names<T, P>());
}

template <class TA, class TB, class TC>
void append_gemm(std::vector<KernelRow>& rows) {
  append(rows, "gemm", gemm_lines<TA, TB, TC>(), type_names<TA, TB, TC>());
}

}  // namespace

std::vector<KernelRow> kernel_rows() {
  std::vector<KernelRow> rows;
  append_single_type<double>(rows);
  append_single_type<float>(rows);
  append_single_type<Bf16>(rows);
  append_norm<double, double>(rows);
  append_norm<float, float>(rows);
  append_norm<Bf16, float>(rows);
  append_norm<Bf16, Bf16>(rows);
  append_embed<double, double>(rows);
  append_embed<float, float>(rows);
  append_embed<Bf16, Bf16>(rows);
  append_embed<float, Bf16>(rows);
  append_gemm<double, double, double>(rows);
  append_gemm<float, float, float>(rows);
  append_gemm<Bf16, Bf16, Bf16>(rows);
  append_gemm<Bf16, Bf16, float>(rows);
  append_gemm<float, Bf16, float>(rows);
  append_full_precision<double>(rows);
  append_full_precision<float>(rows);
  append_loss<double, double>(rows);
  append_loss<float, float>(rows);
  append_loss<float, Bf16>(rows);
  append(rows, "loss_sum", loss_sum_lines(), type_names<double>());
  append(rows, "step_decision", decision_lines(), type_names<double>());
  append(rows, "sample", sample_lines(), type_names<float>());
  append_convert<double, double, float, Bf16, F16>(rows);
  append_convert<float, double, float, Bf16, F16>(rows);
  append_convert<Bf16, double, float, Bf16, F16>(rows);
  append_convert<F16, double, float, Bf16, F16>(rows);
  std::stable_sort(rows.begin(), rows.end(), [](const KernelRow& a, const KernelRow& b) {
    return std::tie(a.family, a.operation) < std::tie(b.family, b.operation);
  });
  return rows;
}

}  // namespace adder::apps
