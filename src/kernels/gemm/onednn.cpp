#include "kernels/gemm/onednn.h"

#include <dnnl.h>
#include <omp.h>

#include <dnnl.hpp>
#include <unordered_map>

#include "core/threads.h"
#include "kernels/gemm/cut.h"

namespace adder {
namespace {

// oneDNN would open OpenMP threads of its own, whose number changes its blocking and so the bits.
// The setting belongs to the calling thread.
class OneThread {
 public:
  OneThread() : before_(omp_get_max_threads()) {
    if (before_ != 1) omp_set_num_threads(1);
  }
  ~OneThread() {
    if (before_ != 1) omp_set_num_threads(before_);
  }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_;
};

// Tiles of 128-256 rows and 512 columns reach the rate of the whole product (measured on an AVX-512
// machine). Columns are cut by n alone, since the order of summation inside a tile may depend on its
// width; only the weight gradient (A transposed, k = tokens), which has few rows and columns, looks
// at both to get at least four tiles.
Cut cut_rows(const GemmShape& shape) {
  const int64_t least = shape.transpose_a ? 128 : 64;
  const int64_t part = shape.m / (shape.transpose_a ? 4 : 8);
  return Cut::by_target(shape.m, std::clamp<int64_t>(part, least, 256));
}
Cut cut_columns(const GemmShape& shape) {
  if (!shape.transpose_a) return Cut::by_target(shape.n, 512);
  return Cut::by_target(shape.n, std::clamp<int64_t>(shape.n / 2, shape.m < 1024 ? 128 : 256, 512));
}

struct Tile {
  int64_t row, rows, column, columns;
};

// Calls body(tile) on one thread for every tile; the tiles of one block of columns are neighbours.
template <class Body>
void for_each_tile(const GemmShape& shape, int threads, const Body& body) {
  const Cut rows = cut_rows(shape), columns = cut_columns(shape);
  parallel_for(useful_threads(shape, threads), rows.parts * columns.parts, [&](int64_t item) {
    const OneThread one_thread;
    const int64_t i = item % rows.parts, j = item / rows.parts;
    body(Tile{rows.begin(i), rows.size(i), columns.begin(j), columns.size(j)});
  });
}

template <class T>
const T* first_of_a(const GemmShape& shape, const T* a, int64_t lda, int64_t row) {
  return shape.transpose_a ? a + row : a + row * lda;
}
template <class T>
const T* first_of_b(const GemmShape& shape, const T* b, int64_t ldb, int64_t column) {
  return shape.transpose_b ? b + column * ldb : b + column;
}

void add_bias(const GemmShape& shape, const GemmArgs<float, float, float>& args, const Tile& tile) {
  if (!shape.bias) return;
  for (int64_t i = 0; i < tile.rows; ++i) {
    float* c = args.c + (tile.row + i) * args.ldc + tile.column;
    for (int64_t j = 0; j < tile.columns; ++j) c[j] += args.bias[tile.column + j];
  }
}

void sgemm_tile(const GemmShape& shape, const GemmArgs<float, float, float>& args,
                const Tile& tile) {
  const dnnl_status_t status = dnnl_sgemm(
      shape.transpose_a ? 'T' : 'N', shape.transpose_b ? 'T' : 'N', tile.rows, tile.columns,
      shape.k, 1.0f, first_of_a(shape, args.a, args.lda, tile.row), args.lda,
      first_of_b(shape, args.b, args.ldb, tile.column), args.ldb, shape.accumulate ? 1.0f : 0.0f,
      args.c + tile.row * args.ldc + tile.column, args.ldc);
  ADDER_CHECK(status == dnnl_success);
  add_bias(shape, args, tile);
}

// A weight gradient with more rows than columns goes faster as C^T = B^T A, turned into place
// (measured, k = 2048: m1024 n256 106 -> 154 GFLOP/s, m512 n16 61 -> 120 on one core).
bool goes_turned(const GemmShape& shape) {
  return shape.transpose_a && !shape.transpose_b && shape.m >= 2 * shape.n;
}

// C tile (+)= turned^T, in blocks whose lines stay in L1. turned: (columns, rows).
void turn_into_place(const GemmShape& shape, const GemmArgs<float, float, float>& args,
                     const Tile& tile, const float* turned) {
  constexpr int64_t kBlock = 16;
  for (int64_t i0 = 0; i0 < tile.rows; i0 += kBlock) {
    const int64_t i_end = std::min(tile.rows, i0 + kBlock);
    for (int64_t j0 = 0; j0 < tile.columns; j0 += kBlock) {
      const int64_t j_end = std::min(tile.columns, j0 + kBlock);
      for (int64_t i = i0; i < i_end; ++i) {
        float* c = args.c + (tile.row + i) * args.ldc + tile.column;
        for (int64_t j = j0; j < j_end; ++j) {
          const float value = turned[j * tile.rows + i];
          c[j] = shape.accumulate ? c[j] + value : value;
        }
      }
    }
  }
}

// turned: room for C, of which every tile has a part of its own.
void turned_sgemm_tile(const GemmShape& shape, const GemmArgs<float, float, float>& args,
                       const Tile& tile, float* turned) {
  float* part = turned + tile.row * shape.n + tile.column * tile.rows;
  const dnnl_status_t status =
      dnnl_sgemm('T', 'N', tile.columns, tile.rows, shape.k, 1.0f,
                 first_of_b(shape, args.b, args.ldb, tile.column), args.ldb,
                 first_of_a(shape, args.a, args.lda, tile.row), args.lda, 0.0f, part, tile.rows);
  ADDER_CHECK(status == dnnl_success);
  turn_into_place(shape, args, tile, part);
  add_bias(shape, args, tile);
}

void sgemm_tiles(const GemmShape& shape, const GemmArgs<float, float, float>& args, int threads) {
  for_each_tile(shape, threads, [&](const Tile& tile) { sgemm_tile(shape, args, tile); });
}

// Columns of B that are widened at a time.
constexpr int64_t kWidenedColumns = 2048;

struct WidenedBlock {
  int64_t column, columns;
};

// Rows first .. first + count of B's stored block, as fp32, dense.
void widen_rows(const GemmShape& shape, const GemmArgs<float, Bf16, float>& args,
                const WidenedBlock& block, int64_t row, float* to) {
  const int64_t width = shape.transpose_b ? shape.k : block.columns;
  const Bf16* from = shape.transpose_b ? args.b + (block.column + row) * args.ldb
                                       : args.b + row * args.ldb + block.column;
  for (int64_t i = 0; i < width; ++i) to[row * width + i] = static_cast<float>(from[i]);
}

// ---- matmul primitives (bf16) ----------------------------------------------------------------

struct MatmulKey {
  int64_t rows, columns, k, lda, ldb, ldc;
  bool transpose_a, transpose_b, accumulate, bias;
  Dtype c_type;
  bool operator==(const MatmulKey&) const = default;
};

struct MatmulKeyHash {
  size_t operator()(const MatmulKey& key) const {
    uint64_t hash = 0xCBF29CE484222325ull;
    const int64_t flags = key.transpose_a | key.transpose_b << 1 | key.accumulate << 2 |
                          key.bias << 3 | static_cast<int64_t>(key.c_type) << 4;
    for (const int64_t field : {key.rows, key.columns, key.k, key.lda, key.ldb, key.ldc, flags}) {
      hash = (hash ^ static_cast<uint64_t>(field)) * 0x100000001B3ull;
      hash ^= hash >> 29;
    }
    return static_cast<size_t>(hash);
  }
};

// A primitive with its memory objects, whose pointers are set at each call.
struct Matmul {
  dnnl::matmul primitive;
  dnnl::memory a, b, c, bias;
};

const dnnl::engine& cpu_engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

dnnl::memory::desc matrix_desc(int64_t rows, int64_t columns, dnnl::memory::data_type type,
                               int64_t stored_stride, bool transposed) {
  const dnnl::memory::dims strides =
      transposed ? dnnl::memory::dims{1, stored_stride} : dnnl::memory::dims{stored_stride, 1};
  return {dnnl::memory::dims{rows, columns}, type, strides};
}

dnnl::matmul::primitive_desc matmul_desc(const MatmulKey& key, const Matmul& matmul) {
  dnnl::primitive_attr attributes;
  if (key.accumulate) {
    dnnl::post_ops sum;
    sum.append_sum(1.0f);
    attributes.set_post_ops(sum);
  }
  const auto a = matmul.a.get_desc(), b = matmul.b.get_desc(), c = matmul.c.get_desc();
#if DNNL_VERSION_MAJOR >= 3
  if (!key.bias) return {cpu_engine(), a, b, c, attributes};
  return {cpu_engine(), a, b, matmul.bias.get_desc(), c, attributes};
#else
  const auto operation =
      key.bias ? dnnl::matmul::desc(a, b, matmul.bias.get_desc(), c) : dnnl::matmul::desc(a, b, c);
  return {operation, attributes, cpu_engine()};
#endif
}

Matmul make_matmul(const MatmulKey& key) {
  using Type = dnnl::memory::data_type;
  const Type c_type = key.c_type == Dtype::bf16 ? Type::bf16 : Type::f32;
  const auto memory = [](const dnnl::memory::desc& desc) {
    return dnnl::memory(desc, cpu_engine(), nullptr);
  };
  Matmul matmul;
  matmul.a = memory(matrix_desc(key.rows, key.k, Type::bf16, key.lda, key.transpose_a));
  matmul.b = memory(matrix_desc(key.k, key.columns, Type::bf16, key.ldb, key.transpose_b));
  matmul.c = memory(matrix_desc(key.rows, key.columns, c_type, key.ldc, false));
  matmul.bias = memory(matrix_desc(1, key.columns, Type::f32, key.columns, false));
  matmul.primitive = dnnl::matmul(matmul_desc(key, matmul));
  return matmul;
}

// One store a thread: in oneDNN's default build a primitive's scratchpad belongs to the thread that
// made it, so primitives are not shared. The compiled code is shared by oneDNN's own cache.
Matmul& matmul_of_thread(const MatmulKey& key) {
  constexpr size_t kMost = 512;
  thread_local std::unordered_map<MatmulKey, Matmul, MatmulKeyHash> made;
  const auto found = made.find(key);
  if (found != made.end()) return found->second;
  if (made.size() >= kMost) made.clear();
  return made.emplace(key, make_matmul(key)).first->second;
}

dnnl::stream& stream_of_thread() {
  thread_local dnnl::stream stream(cpu_engine());
  return stream;
}

// oneDNN refuses a stride of 0 or below the extent, which one row alone may have.
int64_t stride_of(int64_t stored_rows, int64_t stored_columns, int64_t stride) {
  return stored_rows == 1 ? stored_columns : stride;
}

template <class TC>
void matmul_tile(const GemmShape& shape, const GemmArgs<Bf16, Bf16, TC>& args, const Tile& tile) {
  const MatmulKey key = {tile.rows,
                         tile.columns,
                         shape.k,
                         shape.transpose_a ? args.lda : stride_of(tile.rows, shape.k, args.lda),
                         shape.transpose_b ? args.ldb : stride_of(shape.k, tile.columns, args.ldb),
                         args.ldc,
                         shape.transpose_a,
                         shape.transpose_b,
                         shape.accumulate,
                         shape.bias,
                         dtype_of<TC>};
  Matmul& matmul = matmul_of_thread(key);
  const auto point = [](dnnl::memory& memory, const void* data) {
    memory.set_data_handle(const_cast<void*>(data));
  };
  point(matmul.a, first_of_a(shape, args.a, args.lda, tile.row));
  point(matmul.b, first_of_b(shape, args.b, args.ldb, tile.column));
  point(matmul.c, args.c + tile.row * args.ldc + tile.column);
  std::unordered_map<int, dnnl::memory> arguments = {
      {DNNL_ARG_SRC, matmul.a}, {DNNL_ARG_WEIGHTS, matmul.b}, {DNNL_ARG_DST, matmul.c}};
  if (shape.bias) {
    point(matmul.bias, args.bias + tile.column);
    arguments.emplace(DNNL_ARG_BIAS, matmul.bias);
  }
  matmul.primitive.execute(stream_of_thread(), arguments);
  stream_of_thread().wait();
}

template <class TC>
void matmul_forward(const GemmShape& shape, const GemmArgs<Bf16, Bf16, TC>& args, Exec exec) {
  for_each_tile(shape, exec.threads, [&](const Tile& tile) { matmul_tile(shape, args, tile); });
}

}  // namespace

void onednn_forward(const GemmShape& shape, const GemmArgs<float, float, float>& args, Exec exec) {
  if (!goes_turned(shape)) return sgemm_tiles(shape, args, exec.threads);
  float* turned = exec.carve<float>(shape.m * shape.n);
  for_each_tile(shape, exec.threads,
                [&](const Tile& tile) { turned_sgemm_tile(shape, args, tile, turned); });
}

void onednn_forward(const GemmShape& shape, const GemmArgs<float, Bf16, float>& args, Exec exec) {
  const Cut blocks = Cut::by_target(shape.n, kWidenedColumns);
  for (int64_t part = 0; part < blocks.parts; ++part) {
    const WidenedBlock block = {blocks.begin(part), blocks.size(part)};
    float* widened = reinterpret_cast<float*>(exec.scratch);
    const int64_t stored_rows = shape.transpose_b ? block.columns : shape.k;
    constexpr int64_t kRows = 16;
    parallel_for(exec.threads, (stored_rows + kRows - 1) / kRows, [&](int64_t item) {
      const int64_t end = std::min(stored_rows, (item + 1) * kRows);
      for (int64_t row = item * kRows; row < end; ++row)
        widen_rows(shape, args, block, row, widened);
    });
    GemmShape narrow = shape;
    narrow.n = block.columns;
    GemmArgs<float, float, float> wide;
    wide.a = args.a;
    wide.lda = args.lda;
    wide.b = widened;
    wide.ldb = shape.transpose_b ? shape.k : block.columns;
    wide.c = args.c + block.column;
    wide.ldc = args.ldc;
    wide.bias = shape.bias ? args.bias + block.column : nullptr;
    sgemm_tiles(narrow, wide, exec.threads);
  }
}

void onednn_forward(const GemmShape& shape, const GemmArgs<Bf16, Bf16, Bf16>& args, Exec exec) {
  matmul_forward(shape, args, exec);
}

void onednn_forward(const GemmShape& shape, const GemmArgs<Bf16, Bf16, float>& args, Exec exec) {
  matmul_forward(shape, args, exec);
}

int64_t onednn_scratch_bytes(const Caps&, const GemmShape& shape, Direction) {
  return goes_turned(shape) ? shape.m * shape.n * static_cast<int64_t>(sizeof(float)) : 0;
}

int64_t onednn_widened_scratch_bytes(const Caps&, const GemmShape& shape, Direction) {
  return std::min(kWidenedColumns + Cut::kEdge, shape.n) * shape.k *
         static_cast<int64_t>(sizeof(float));
}

}  // namespace adder
