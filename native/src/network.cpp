#include "network.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

namespace understudy {

namespace {

constexpr size_t together = 64;  // rows that go through the dense layers at once

std::vector<Layer> layers(const Kernels& kernels, const std::vector<LayerWeights>& weights, Places& places) {
  std::vector<Layer> made;
  for (const LayerWeights& layer : weights) {
    made.emplace_back(kernels, layer, places);
    places = made.back().written();
  }
  return made;
}

std::vector<float> through(const std::vector<Layer>& layers, std::vector<float> values, size_t rows) {
  for (const Layer& layer : layers) {
    std::vector<float> next(rows * layer.written().width);
    layer.run(values.data(), next.data(), rows);
    values = std::move(next);
  }
  return values;
}

// (rows, width) twice -> (rows, 4 * width)
std::vector<float> beside(const std::vector<float>& first, const std::vector<float>& second, size_t rows) {
  const size_t width = first.size() / rows;
  std::vector<float> four(4 * first.size());
  for (size_t row = 0; row < rows; row++)
    for (size_t place = 0; place < width; place++) {
      const float u = first[row * width + place], v = second[row * width + place];
      float* to = &four[4 * row * width + place];
      to[0] = u;
      to[width] = v;
      to[2 * width] = u * v;
      to[3 * width] = std::abs(u - v);
    }
  return four;
}

}  // namespace

// Each number is read once, then kept here: whoever has the arrays may write to them meanwhile.
struct Network::Checked {
  std::vector<int32_t> ids;
  std::vector<Row> rows;
};

Network::Network(const Kernels& kernels, const Plan& plan, int threads)
    : kernels_(kernels),
      pool_(threads),
      tower_(kernels, plan.lstm, pool_),
      pooling_(plan.pooling),
      compare_(plan.compare) {
  if (compare_ && of_pieces()) throw std::invalid_argument("pieces of two texts can't be compared");
  Places places{{}, 2 * tower_.width()};
  for (size_t direction = 0; direction < 2; direction++)
    for (size_t unit = 0; unit < tower_.hidden(); unit++) places.of.push_back(direction * tower_.width() + unit);
  each_ = layers(kernels, plan.each, places);
  if (compare_) places = compared(places);
  last_ = layers(kernels, plan.last, places);
  if (compare_ && last_.empty()) throw std::invalid_argument("a dense layer reads the comparison");
  if (each_.empty() && last_.empty()) throw std::invalid_argument("a network has a dense layer at least");
  labels_ = places.of.size();
}

void Network::run(std::span<const Texts> texts, float* logits, Stop stop) const {
  const Checked own = checked(texts);
  const std::vector<Row>& rows = own.rows;
  if (rows.empty()) return;
  const size_t count = texts[0].rows, width = texts[0].width;
  std::vector<float*> out;
  for (size_t row = 0; row < count; row++)
    for (int piece = 0; piece < (of_pieces() ? rows[row].length : 1); piece++)
      out.push_back(logits + (of_pieces() ? row * width + piece : row) * labels_);
  if (of_pieces()) std::fill_n(logits, count * width * labels_, 0.0f);
  const auto states = array<float>((of_pieces() ? out.size() : rows.size()) * 2 * tower_.width());
  tower_.run(rows, pooling_, states.get(), pool_, stop);
  answer(states.get(), out);
}

Network::Checked Network::checked(std::span<const Texts> texts) const {
  if (texts.size() != this->texts()) throw std::invalid_argument("another number of texts than the network reads");
  std::vector<int32_t> kept;
  std::vector<int> lengths;
  for (const Texts& some : texts) {
    if (some.rows != texts[0].rows) throw std::invalid_argument("as many first as second texts are wanted");
    for (size_t row = 0; row < some.rows; row++) {
      const int64_t* ids = some.ids + row * some.width;
      const int64_t length = some.lengths[row];
      if (length < 1 || size_t(length) > some.width || length > INT32_MAX)
        throw std::invalid_argument("row " + std::to_string(row) + " has length " + std::to_string(length) + " in a block of " +
                                    std::to_string(some.width));
      lengths.push_back(int(length));
      for (int64_t place = 0; place < length; place++) {
        const int64_t id = ids[place];
        if (id < 0 || size_t(id) >= tower_.vocabulary())
          throw std::invalid_argument("token id " + std::to_string(id) + " is not in a vocabulary of " +
                                      std::to_string(tower_.vocabulary()));
        kept.push_back(int32_t(id));
      }
    }
  }
  Checked own{std::move(kept), {}};
  const int32_t* ids = own.ids.data();
  for (const int length : lengths) {
    own.rows.push_back({ids, length});
    ids += length;
  }
  return own;
}

void Network::answer(const float* states, const std::vector<float*>& out) const {
  const size_t parts = (out.size() + together - 1) / together;
  pool_.run(int(parts), [&](int part) {
    const size_t first = part * together, rows = std::min(together, out.size() - first), width = 2 * tower_.width();
    const auto vectors = [&](size_t text) {
      const float* begin = states + (text * out.size() + first) * width;
      return through(each_, {begin, begin + rows * width}, rows);
    };
    std::vector<float> values = vectors(0);
    if (compare_) values = beside(values, vectors(1), rows);
    values = through(last_, std::move(values), rows);
    for (size_t row = 0; row < rows; row++)
      std::copy_n(&values[row * (values.size() / rows)], labels_, out[first + row]);
  });
}

}  // namespace understudy
