#include "text/documents.h"

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "core/mapped_file.h"
#include "formats/json.h"
#include "formats/token_shard.h"

namespace adder {
namespace {

constexpr int64_t kBlock = 1 << 20;
constexpr int64_t kLongestLine = int64_t{1} << 30;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

/// Hands out the lines of a file without their ends (LF or CR LF), in blocks, so that the file need
/// not fit in memory.
class LineReader {
 public:
  explicit LineReader(const std::string& path) : file_(path) {}

  /// False at the end. `line` lives until the next call.
  bool next(std::string_view* line) {
    size_t end;
    while ((end = buffer_.find('\n', searched_)) == std::string::npos) {
      searched_ = buffer_.size();
      if (!refill()) break;
    }
    if (end == std::string::npos && begin_ == buffer_.size()) return false;
    end = std::min(end, buffer_.size());
    *line = std::string_view(buffer_).substr(begin_, end - begin_);
    if (line->ends_with('\r')) line->remove_suffix(1);
    if (++number_ == 1 && line->starts_with(kByteOrderMark)) line->remove_prefix(3);
    begin_ = searched_ = std::min(end + 1, buffer_.size());
    return true;
  }

  /// "FILE:LINE" of the line handed out last.
  std::string where() const { return file_.path() + ":" + std::to_string(number_); }
  int64_t number() const { return number_; }

 private:
  bool refill() {
    const int64_t left = file_.size() - offset_;
    if (left == 0) return false;
    if (static_cast<int64_t>(buffer_.size() - begin_) > kLongestLine) {
      throw Error({"a line is too long",
                   file_.path() + ":" + std::to_string(number_ + 1),
                   "at most 1 GiB",
                   {}});
    }
    buffer_.erase(0, begin_);
    searched_ -= begin_;
    begin_ = 0;
    const size_t old = buffer_.size();
    buffer_.resize(old + static_cast<size_t>(std::min(left, kBlock)));
    const auto fresh = std::span<char>(buffer_).subspan(old);
    file_.read(offset_, std::as_writable_bytes(fresh));
    offset_ += static_cast<int64_t>(fresh.size());
    return true;
  }

  MappedFile file_;
  std::string buffer_;
  size_t begin_ = 0;     // of the next line
  size_t searched_ = 0;  // no line end lies in [begin_, searched_)
  int64_t offset_ = 0;   // of the file, behind the buffer
  int64_t number_ = 0;
};

using Document = std::function<void(std::string_view)>;

void read_plain(const std::string& path, const Document& document) {
  const std::string text = read_text_file(path, std::numeric_limits<int64_t>::max());
  if (!text.empty()) document(text);
}

bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t") == std::string_view::npos;
}

void read_jsonl(const std::string& path, const DocumentOptions& options, const Document& document) {
  JsonLimits limits;
  limits.max_bytes = kLongestLine;
  LineReader lines(path);
  std::string_view line;
  while (lines.next(&line)) {
    if (is_blank(line)) continue;
    const JsonValue json = parse_json(line, lines.where(), limits);
    JsonFields fields(json, lines.where());
    document(fields.get_string(options.field));
  }
}

/// \t, \n, \r and \\ become the characters that they stand for; other backslashes stay.
std::string without_escapes(std::string_view cell) {
  std::string text;
  text.reserve(cell.size());
  for (size_t i = 0; i < cell.size(); ++i) {
    const char next = cell[i] == '\\' && i + 1 < cell.size() ? cell[i + 1] : '\0';
    const char meant = next == 't' ? '\t' : next == 'n' ? '\n' : next == 'r' ? '\r' : next;
    const bool escape = next == 't' || next == 'n' || next == 'r' || next == '\\';
    text += escape ? meant : cell[i];
    if (escape) ++i;
  }
  return text;
}

std::string_view cell_of(std::string_view line, int64_t column, const LineReader& lines) {
  for (int64_t i = 0; i < column; ++i) {
    const size_t tab = line.find('\t');
    if (tab == std::string_view::npos) {
      throw Error({"too few columns", lines.where(), "at least " + std::to_string(column + 1),
                   std::to_string(i + 1)});
    }
    line.remove_prefix(tab + 1);
  }
  return line.substr(0, line.find('\t'));
}

void read_tsv(const std::string& path, const DocumentOptions& options, const Document& document) {
  if (options.column < 0) {
    throw Error({"wrong column", path, "0 or above", std::to_string(options.column)});
  }
  LineReader lines(path);
  std::string_view line;
  while (lines.next(&line)) {
    if (line.empty() || (options.skip_header && lines.number() == 1)) continue;
    const std::string_view cell = cell_of(line, options.column, lines);
    if (!is_utf8(cell)) throw Error({"not valid UTF-8", lines.where(), {}, {}});
    document(without_escapes(cell));
  }
}

DocumentFormat format_of(const std::string& path, DocumentFormat format) {
  if (format != DocumentFormat::automatic) return format;
  if (path.ends_with(".jsonl") || path.ends_with(".ndjson")) return DocumentFormat::jsonl;
  return path.ends_with(".tsv") ? DocumentFormat::tsv : DocumentFormat::plain;
}

}  // namespace

DocumentFormat document_format_from_name(std::string_view name) {
  if (name == "auto") return DocumentFormat::automatic;
  if (name == "plain") return DocumentFormat::plain;
  if (name == "jsonl") return DocumentFormat::jsonl;
  if (name == "tsv") return DocumentFormat::tsv;
  throw Error({"unknown text format", {}, "auto, plain, jsonl or tsv", std::string(name)});
}

void read_documents(const std::string& path, const DocumentOptions& options,
                    const Document& document) {
  switch (format_of(path, options.format)) {
    case DocumentFormat::jsonl:
      return read_jsonl(path, options, document);
    case DocumentFormat::tsv:
      return read_tsv(path, options, document);
    default:
      return read_plain(path, document);
  }
}

std::vector<std::string> read_documents(const std::string& path, const DocumentOptions& options) {
  std::vector<std::string> documents;
  read_documents(path, options, [&](std::string_view text) { documents.emplace_back(text); });
  return documents;
}

TokenShardInfo tokenize_file(const std::string& input, const std::string& shard,
                             const Tokenizer& tokenizer, const TokenizeOptions& options) {
  if (options.separator &&
      (*options.separator < 0 || *options.separator >= tokenizer.vocab_size())) {
    throw Error({"the separator is outside the vocabulary", input,
                 "0 to " + std::to_string(tokenizer.vocab_size() - 1),
                 std::to_string(*options.separator)});
  }
  TokenShardWriter writer(shard, tokenizer.vocab_size(), tokenizer.name());
  int64_t tokens = 0;
  read_documents(input, options.documents, [&](std::string_view text) {
    const size_t block = tokenizer.splits_anywhere() ? static_cast<size_t>(kBlock) : text.size();
    for (size_t begin = 0; begin < text.size(); begin += block) {
      const std::vector<int32_t> encoded = tokenizer.encode(text.substr(begin, block));
      writer.append(encoded);
      tokens += static_cast<int64_t>(encoded.size());
    }
    writer.add_text_bytes(static_cast<int64_t>(text.size()));
    writer.add_document();
    if (options.separator) writer.append(std::span(&*options.separator, 1));
  });
  if (tokens == 0) throw Error({"no text to tokenize", input, "at least one byte", "none"});
  return writer.finish();
}

}  // namespace adder
