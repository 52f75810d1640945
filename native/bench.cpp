// Where the time of a row goes: a student of random weights, 24 tokens a row, one thread. Prints microseconds a row of this
// thread's processor time, the least of many rounds. Build and run: see docs/results/engine.md.
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "src/network.hpp"

using namespace understudy;

namespace {

constexpr size_t vocabulary = 30522, embedding = 300, dense = 150, tokens = 24;
std::mt19937 chance(1);

double microseconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return now.tv_sec * 1e6 + now.tv_nsec * 1e-3;
}

template <class Work>
double least(int rounds, Work work) {
  double found = 1e12;
  for (int round = 0; round < rounds; round++) {
    const double start = microseconds();
    work(round);
    found = std::min(found, microseconds() - start);
  }
  return found;
}

std::vector<float> numbers(size_t size) {
  std::normal_distribution<float> normal(0, 0.08f);
  std::vector<float> found(size);
  for (float& value : found) value = normal(chance);
  return found;
}

// One direction's step in time: all of it, and without the products of a first step.
void steps(const Kernels& kernels, size_t hidden, size_t rows) {
  const size_t width = (hidden + kernels.lanes - 1) / kernels.lanes * kernels.lanes, pairs = (hidden + 1) / 2;
  std::vector<int16_t> weights(width * gates * pairs * 2), from(rows * width, 100), to(rows * width);
  for (int16_t& weight : weights) weight = int16_t(chance() % 2000 - 1000);
  std::vector<uint16_t> table(rows * gates * width);
  for (uint16_t& half : table) half = uint16_t(0x3000 + chance() % 1000);
  std::vector<float> scales(width * gates, 1e-7f), cells(rows * width), states(rows * width);
  std::vector<const uint16_t*> inputs(rows);
  std::vector<float*> out(rows);
  for (size_t row = 0; row < rows; row++) {
    inputs[row] = table.data() + row * gates * width;
    out[row] = states.data() + row * width;
  }
  std::vector<uint8_t> tiles(width / kernels.lanes * gates * spans(pairs) * 2 * tile_bytes);
  for (uint8_t& value : tiles) value = uint8_t(chance());
  std::vector<uint8_t> halves(2 * rows * spans(pairs) * tile_units);
  const Recurrent recurrent{weights.data(), tiles.data(), scales.data(), int(width / kernels.lanes), int(pairs)};
  double found[2];
  for (bool first : {false, true}) {
    const Step step{int(rows), first,        false,     inputs.data(), inputs.data(),
                    from.data(), to.data(), cells.data(), out.data(), halves.data()};
    const auto some = [&](int) {  // asking for the time takes as long as a short step
      for (size_t token = 0; token < tokens; token++) kernels.step(recurrent, step);
    };
    found[first] = 2 * least(200, some) / rows;
  }
  std::printf("%3zu rows: recurrent products %6.1f, gates and cells %5.1f\n", rows, found[false] - found[true], found[true]);
}

}  // namespace

int main(int count, char** arguments) {
  const size_t hidden = count > 2 ? std::atoi(arguments[2]) : 150;
  const Kernels* kernels = choose_kernels(count > 1 ? arguments[1] : nullptr);
  if (!kernels || hidden < 1) return std::fputs("bench [ISA] [HIDDEN]\n", stderr), 2;
  std::printf("%s, H = %zu, %zu tokens\n", kernels->name, hidden, tokens);
  for (size_t rows : {1, 32}) steps(*kernels, hidden, rows);
  std::vector<int8_t> values(vocabulary * embedding);
  for (int8_t& value : values) value = int8_t(chance() % 255 - 127);
  const std::vector<float> scales(vocabulary, 0.002f), input = numbers(8 * hidden * embedding);
  const std::vector<float> recurrent = numbers(8 * hidden * hidden), bias = numbers(16 * hidden);
  const std::vector<float> first = numbers(dense * 2 * hidden), second = numbers(2 * dense), biases = numbers(dense);
  const LayerWeights layers[2] = {{first.data(), biases.data(), dense, 2 * hidden, Activation::relu},
                                  {second.data(), biases.data(), 2, dense, Activation::none}};
  const LstmWeights lstm{vocabulary, embedding, hidden, values.data(), scales.data(), input.data(), recurrent.data(), bias.data()};
  const double start = microseconds();
  const Network network(*kernels, {lstm, Pooling::last, {layers[0], layers[1]}, false, {}}, 1);
  std::printf("opening: %.0f ms\n", (microseconds() - start) / 1e3);
  std::vector<std::vector<int64_t>> blocks(64, std::vector<int64_t>(64 * tokens));
  for (auto& block : blocks)
    for (int64_t& id : block) id = chance() % vocabulary;
  const std::vector<int64_t> lengths(64, tokens);
  std::vector<float> logits(64 * 2);
  for (size_t rows : {1, 2, 4, 8, 16, 32, 64}) {
    const auto run = [&](int round) {
      const Texts texts{blocks[round % 64].data(), lengths.data(), rows, tokens};
      network.run({&texts, 1}, logits.data(), nullptr);
    };
    const double random = least(300, run), same = least(300, [&](int) { run(0); });
    std::printf("%3zu rows: all %6.1f, of tokens that were just read %6.1f\n", rows, random / rows, same / rows);
  }
}
