#include "core/error.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace adder {
namespace {

std::string join(const Error::Parts& parts) {
  std::string text = parts.where.empty() ? parts.what : parts.where + ": " + parts.what;
  if (!parts.expected.empty()) text += ": expected " + parts.expected;
  if (!parts.got.empty()) text += (parts.expected.empty() ? ": got " : ", got ") + parts.got;
  return text;
}

}  // namespace

Error::Error(Parts parts) : std::runtime_error(join(parts)), parts_(std::move(parts)) {}

void check_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "adder: internal error: %s:%d: check failed: %s\n", file, line, condition);
  std::abort();
}

int edit_distance(std::string_view a, std::string_view b) {
  std::vector<int> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = static_cast<int>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    int diagonal = row[0];
    row[0] = static_cast<int>(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const int above = row[j];
      const int substitute = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({above + 1, row[j - 1] + 1, substitute});
      diagonal = above;
    }
  }
  return row[b.size()];
}

}  // namespace adder
