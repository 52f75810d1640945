// What Python sees: understudy_native.Network, with arrays in and logits out. Shapes are checked here.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <optional>
#include <string>
#include <tuple>

#include "network.hpp"

namespace nb = nanobind;

namespace understudy {
namespace {

template <class T, int Dimensions>
using In = nb::ndarray<const T, nb::ndim<Dimensions>, nb::c_contig, nb::device::cpu>;
using Flag = nb::ndarray<uint8_t, nb::shape<1>, nb::c_contig, nb::device::cpu>;
using DenseIn = std::tuple<In<float, 2>, In<float, 1>, std::string>;
using TextsIn = std::pair<In<int64_t, 2>, In<int64_t, 1>>;

void require(bool kept, const char* rule) {
  if (!kept) throw std::invalid_argument(rule);
}

LstmWeights lstm(const In<int8_t, 2>& values, const In<float, 1>& scales, const In<float, 3>& input,
                 const In<float, 3>& recurrent, const In<float, 2>& bias) {
  const size_t hidden = recurrent.shape(2), most = 1 << 16;
  require(values.shape(0) > 0 && values.shape(1) > 0 && hidden > 0, "the vocabulary, embeddings and states have a size");
  require(values.shape(0) <= INT32_MAX, "a vocabulary has 2,147,483,647 tokens at most");
  require(values.shape(1) <= most && hidden <= most, "embeddings and states have 65,536 numbers at most");
  require(scales.shape(0) == values.shape(0), "each embedding has a scale");
  require(input.shape(0) == 2 && input.shape(1) == 4 * hidden && input.shape(2) == values.shape(1),
          "the LSTM's input weights are (2, 4H, E)");
  require(recurrent.shape(0) == 2 && recurrent.shape(1) == 4 * hidden, "the LSTM's recurrent weights are (2, 4H, H)");
  require(bias.shape(0) == 2 && bias.shape(1) == 8 * hidden, "the LSTM's bias is (2, 8H)");
  return {values.shape(0), values.shape(1), hidden,           values.data(),
          scales.data(),   input.data(),    recurrent.data(), bias.data()};
}

Pooling pooling(const std::string& name) {
  if (name == "last") return Pooling::last;
  if (name == "max") return Pooling::max;
  require(name == "pieces", "the pooling is last, max or pieces");
  return Pooling::pieces;
}

Activation activation(const std::string& name) {
  if (name == "none") return Activation::none;
  if (name == "relu") return Activation::relu;
  require(name == "gelu", "an activation is none, relu or gelu");
  return Activation::gelu;
}

std::vector<LayerWeights> dense(const std::vector<DenseIn>& layers) {
  std::vector<LayerWeights> found;
  for (const auto& [weight, bias, name] : layers) {
    require(weight.shape(0) > 0 && weight.shape(1) > 0, "a dense layer has inputs and outputs");
    require(bias.shape(0) == weight.shape(0), "a dense layer has a bias for each output");
    found.push_back({weight.data(), bias.data(), weight.shape(0), weight.shape(1), activation(name)});
  }
  return found;
}

const Kernels& kernels(const std::optional<std::string>& name) {
  const Kernels* found = choose_kernels(name ? name->c_str() : nullptr);
  if (!found) throw std::invalid_argument("this build, or this processor, has no instructions named " + *name);
  return *found;
}

void open(Network* self, const In<int8_t, 2>& values, const In<float, 1>& scales, const In<float, 3>& input,
          const In<float, 3>& recurrent, const In<float, 2>& bias, const std::string& pool,
          const std::vector<DenseIn>& each, bool compare, const std::vector<DenseIn>& last, int threads,
          const std::optional<std::string>& isa) {
  require(threads >= 1 && threads <= 1024, "threads are 1 to 1024");
  const Plan plan{lstm(values, scales, input, recurrent, bias), pooling(pool), dense(each), compare, dense(last)};
  const nb::gil_scoped_release released;
  new (self) Network(kernels(isa), plan, threads);
}

nb::object run(const Network& network, const std::vector<TextsIn>& blocks, const std::optional<Flag>& stop) {
  require(!blocks.empty(), "there are texts to read");
  std::vector<Texts> texts;
  for (const auto& [ids, lengths] : blocks) {
    require(lengths.shape(0) == ids.shape(0), "each row has a length");
    texts.push_back({ids.data(), lengths.data(), ids.shape(0), ids.shape(1)});
  }
  const size_t pieces = network.of_pieces() ? texts[0].width : 1;
  std::unique_ptr<float[]> logits(new float[texts[0].rows * pieces * network.labels()]);
  static_assert(sizeof(std::atomic<uint8_t>) == 1 && std::atomic<uint8_t>::is_always_lock_free);
  const Stop flag = stop ? reinterpret_cast<Stop>(stop->data()) : nullptr;
  {
    const nb::gil_scoped_release released;
    network.run(texts, logits.get(), flag);
  }
  float* memory = logits.release();
  const nb::capsule owner(memory, [](void* numbers) noexcept { delete[] static_cast<float*>(numbers); });
  const size_t shape[3] = {texts[0].rows, network.of_pieces() ? pieces : network.labels(), network.labels()};
  return nb::cast(nb::ndarray<nb::numpy, float>(memory, network.of_pieces() ? 3 : 2, shape, owner));
}

// Sigmoid and tanh as the cell computes them.
std::pair<std::vector<float>, std::vector<float>> squash(const In<float, 1>& values, const std::optional<std::string>& isa) {
  const Kernels& found = kernels(isa);
  const size_t size = values.shape(0), whole = (size + found.lanes - 1) / found.lanes * found.lanes;
  std::vector<float> x(whole), sigmoid(whole), tanh(whole);
  std::copy_n(values.data(), size, x.begin());
  found.squash(x.data(), sigmoid.data(), tanh.data(), whole);
  sigmoid.resize(size);
  tanh.resize(size);
  return {sigmoid, tanh};
}

}  // namespace
}  // namespace understudy

NB_MODULE(understudy_native, m) {
  using namespace nb::literals;
  using namespace understudy;
  nb::set_leak_warnings(false);  // models of a service live as long as its process
  m.doc() = "BiLSTM students, run by code of their own. service/bundle/native.py is who knows how to ask it.";
  nb::exception<Stopped>(m, "Stopped");
  nb::class_<Network>(m, "Network")
      .def("__init__", &open, "values"_a, "scales"_a, "input"_a, "recurrent"_a, "bias"_a, "pooling"_a, "each"_a,
           "compare"_a, "last"_a, "threads"_a = 1, "isa"_a = nb::none())
      .def("run", &run, "texts"_a, "stop"_a.noconvert() = nb::none())
      .def_prop_ro("isa", &Network::isa);
  m.attr("INTERFACE") = 1;  // service/bundle/native.py asks for this one
  m.def("squash", &squash, "values"_a, "isa"_a = nb::none());
  m.def("isas", [] {
    std::vector<std::string> found;
    for (const char* name : {"portable", "emulated", "avx2", "avx512", "amx"})
      if (choose_kernels(name)) found.emplace_back(name);
    return found;
  });
}
